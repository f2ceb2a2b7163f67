// SPDX-License-Identifier: MIT
// Memory and the Runtime that kernel_bench gives the launchers: a GPU's, or, in the build for host
// execution, plain memory.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/runtime.h"

namespace seq2seq_ext::kernel_bench {

// Device memory, all bits set (NaN, -1). Freed by release().
void* allocate(int64_t bytes);
void release(void* memory);
void to_device(void* device, const void* host, int64_t bytes);
void to_host(void* host, const void* device, int64_t bytes);

// Waits for all queued work; throws std::runtime_error with the device's complaint.
void synchronize();

// The device's name and properties; in host execution an H200's, unless the options say otherwise.
std::string device_name();
kernels::cuda::Device device();

// A Runtime whose work memory lives until release_work_memory(). `own_gemm`: no host product, so
// that the project's own runs.
kernels::cuda::Runtime runtime(const kernels::cuda::Device& device, bool own_gemm);
void release_work_memory();

// Host execution: the order in which the next run's threads run (fifo, lifo, random and its seed;
// empty: as the environment says); what to print after a run that took so long: that, and the
// synchronisation sites that it reached, if wanted.
void set_schedule(const std::string& order, const std::string& seed);
void end_of_run(double seconds);

// Median seconds of one call of run(context), or 0 where time means nothing (host execution).
double seconds(void (*run)(void*), void* context, int repetitions);

}  // namespace seq2seq_ext::kernel_bench
