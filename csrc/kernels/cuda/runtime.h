// SPDX-License-Identifier: MIT
// What the CUDA launchers take from their host: a stream, work memory, large products. Under torch
// they are torch's current stream, caching allocator and cuBLAS; in kernel_bench and in the NumPy
// module they are plain functions. No CUDA header here, so that callers compile without one.
#pragma once

#include <cstdint>

#include "common/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// What decides which kernel runs. From cudaGetDeviceProperties; tests make up their own.
struct Device {
  int arch = 90;                         // 80, 86, 89, 90, 100, 120
  int sms = 132;                         // multiprocessors this process may use
  int64_t shared_per_block = 227 << 10;  // bytes of shared memory a block may opt in to
};

struct Runtime {
  Device device;
  void* stream = nullptr;  // cudaStream_t: every launcher queues its work here and never waits

  // Device memory, 256-byte aligned, that stays valid for all work the launcher queues; given back
  // by the host after the launcher returns, in stream order. Null: out of memory. Contents are
  // undefined (tests poison them).
  void* (*allocate)(int64_t bytes, void* context) = nullptr;

  // c = a @ b (+ c) on `stream`. May be null, and may decline (false): the launcher then runs the
  // project's own product (gemm.cuh). `GemmParams::wide`: c is float32 though dtype is 16-bit.
  bool (*gemm)(const GemmParams& params, void* stream, void* context) = nullptr;

  void* context = nullptr;
};

}  // namespace seq2seq_ext::kernels::cuda
