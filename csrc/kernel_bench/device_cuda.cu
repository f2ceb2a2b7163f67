// SPDX-License-Identifier: MIT
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "device.h"

namespace seq2seq_ext::kernel_bench {
namespace {

std::vector<void*> work_memory;

void expect(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Timed repetitions ask for the same sizes in the same order: they get the same memory again.
std::vector<int64_t> work_sizes;
size_t work_next = 0;

void* work(int64_t bytes, void*) {
  if (work_next < work_memory.size() && work_sizes[work_next] == bytes) {
    return work_memory[work_next++];
  }
  void* memory = nullptr;
  if (cudaMalloc(&memory, std::max<int64_t>(bytes, 1)) != cudaSuccess) return nullptr;
  work_memory.insert(work_memory.begin() + work_next, memory);
  work_sizes.insert(work_sizes.begin() + work_next, bytes);
  return work_memory[work_next++];
}

}  // namespace

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  expect(cudaMalloc(&memory, std::max<int64_t>(bytes, 1)));
  expect(cudaMemset(memory, 0xff, bytes));
  return memory;
}
void release(void* memory) { cudaFree(memory); }
void to_device(void* device, const void* host, int64_t bytes) {
  expect(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}
void to_host(void* host, const void* device, int64_t bytes) {
  expect(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
void synchronize() { expect(cudaDeviceSynchronize()); }

std::string device_name() {
  cudaDeviceProp p;
  expect(cudaGetDeviceProperties(&p, 0));
  return p.name;
}

kernels::cuda::Device device() {
  cudaDeviceProp p;
  expect(cudaGetDeviceProperties(&p, 0));
  kernels::cuda::Device d;
  d.arch = p.major * 10 + p.minor;
  d.sms = p.multiProcessorCount;
  d.shared_per_block = p.sharedMemPerBlockOptin;
  return d;
}

kernels::cuda::Runtime runtime(const kernels::cuda::Device& device, bool) {
  kernels::cuda::Runtime r;
  r.device = device;
  r.allocate = work;
  return r;
}

void release_work_memory() {
  for (void* memory : work_memory) cudaFree(memory);
  work_memory.clear();
  work_sizes.clear();
  work_next = 0;
}

void set_schedule(const std::string&, const std::string&) {}
void end_of_run(double) {}

double seconds(void (*run)(void*), void* context, int repetitions) {
  cudaEvent_t from, to;
  expect(cudaEventCreate(&from));
  expect(cudaEventCreate(&to));
  std::vector<float> times;
  for (int i = 0; i < 25 + repetitions; ++i) {
    work_next = 0;
    expect(cudaEventRecord(from));
    run(context);
    expect(cudaEventRecord(to));
    expect(cudaEventSynchronize(to));
    float ms = 0;
    expect(cudaEventElapsedTime(&ms, from, to));
    if (i >= 25) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  cudaEventDestroy(from);
  cudaEventDestroy(to);
  return times[times.size() / 2] * 1e-3;
}

}  // namespace seq2seq_ext::kernel_bench
