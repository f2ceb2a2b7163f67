// SPDX-License-Identifier: MIT
// The one header that kernels include: CUDA when nvcc compiles it, the host execution layer
// otherwise. What a kernel may use besides plain CUDA C++:
//
//   GPU_SHARED(float, sums, [32]);          __shared__ float sums[32];
//   GPU_SHARED_ALIGNED(16, float, x, [64]); likewise, aligned to 16 bytes: for vector accesses
//   GPU_DYN_SHARED(memory);                 the launch's dynamic shared memory, aligned to 128
//   bytes gpu::Carver carver(memory);             hands it out: carver.take<T>(count, align)
//   gpu::spin_wait();                       in every loop that polls a flag
//   ptx.h                                   all inline PTX
//
// and its launcher:
//
//   GPU_LAUNCH(config, kernel, arguments...)            cudaSuccess, or why the launch was refused
//   gpu::launch_failure(name, error)                    that, in words
//   gpu::max_active_blocks(kernel, threads, shared)     blocks of it that a multiprocessor holds
//   gpu::at_hand(arch, multiprocessors)                 whether the current device is such a one
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "cuda/gpu/config.h"

namespace gpu {
constexpr unsigned kAllLanes = 0xffffffffu;
}

#if !defined(__CUDACC__)
#include <host_execution/host_execution.h>

namespace gpu {
inline std::string reason_of(cudaError_t error) { return "error " + std::to_string(int(error)); }
}  // namespace gpu
#else

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <mutex>

#define GPU_SHARED(T, name, dims) __shared__ T name dims
#define GPU_SHARED_ALIGNED(align, T, name, dims) \
  __shared__ __align__(align)                    \
  T name dims
#define GPU_DYN_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

namespace gpu {

// Pieces follow each other and may not overlap: phases that share a region take it once.
class Carver {
 public:
  __device__ explicit Carver(unsigned char* memory) : memory_(memory) {}
  template <class T>
  __device__ T* take(size_t count, size_t align = alignof(T)) {
    used_ = (used_ + align - 1) / align * align;
    T* piece = reinterpret_cast<T*>(memory_ + used_);
    used_ += count * sizeof(T);
    return piece;
  }

 private:
  unsigned char* memory_;
  size_t used_ = 0;
};

__device__ inline void spin_wait() { __nanosleep(32); }

// More than 48 KiB of dynamic shared memory has to be asked for. The limit belongs to the kernel,
// not to the launch: it is only ever raised, and by one thread at a time, or a launch would take
// the permission of another, of more bytes, that is about to be made or is being captured.
template <class Kernel>
cudaError_t allow_shared(Kernel* kernel, size_t bytes) {
  if (bytes <= 48 * 1024) return cudaSuccess;
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  cudaFuncAttributes known;
  const cudaError_t error = cudaFuncGetAttributes(&known, kernel);
  if (error != cudaSuccess || size_t(known.maxDynamicSharedSizeBytes) >= bytes) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

template <class... Params, class... Args>
cudaError_t launch(const Config& config, const char*, void (*kernel)(Params...), Args&&... args) {
  cudaError_t error = allow_shared(kernel, config.smem);
  if (error == cudaSuccess) {
    cudaLaunchAttribute cooperative[1];
    cooperative[0].id = cudaLaunchAttributeCooperative;
    cooperative[0].val.cooperative = 1;
    cudaLaunchConfig_t c{};
    c.gridDim = config.grid;
    c.blockDim = config.block;
    c.dynamicSmemBytes = config.smem;
    c.stream = config.stream;
    c.attrs = cooperative;
    c.numAttrs = config.cooperative ? 1 : 0;
    error = cudaLaunchKernelEx(&c, kernel, static_cast<Params>(std::forward<Args>(args))...);
  }
  // The caller has it: it may not come up again at someone else's next check.
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

inline std::string reason_of(cudaError_t error) { return cudaGetErrorString(error); }

// Whether the current device is one like this. None, or another: what it says of a kernel does not
// count.
inline bool at_hand(int arch, int multiprocessors) {
  const cudaDeviceAttr asked[] = {cudaDevAttrComputeCapabilityMajor,
                                  cudaDevAttrComputeCapabilityMinor,
                                  cudaDevAttrMultiProcessorCount};
  int device = 0, found[3] = {};
  cudaError_t error = cudaGetDevice(&device);
  for (int i = 0; i < 3 && error == cudaSuccess; ++i) {
    error = cudaDeviceGetAttribute(&found[i], asked[i], device);
  }
  if (error != cudaSuccess) cudaGetLastError();
  return error == cudaSuccess && 10 * found[0] + found[1] == arch && found[2] == multiprocessors;
}

// 0 if a block of this size does not fit at all.
template <class Kernel>
int max_active_blocks(Kernel* kernel, int threads, size_t shared) {
  int blocks = 0;
  if (allow_shared(kernel, shared) != cudaSuccess ||
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared) !=
          cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return blocks;
}

}  // namespace gpu

// CUDA has these for unsigned long long, which is not uint64_t everywhere.
#if defined(__LP64__)
#define GPU_ATOMIC_64(name)                                                       \
  __device__ inline uint64_t name(uint64_t* p, uint64_t v) {                      \
    return name(reinterpret_cast<unsigned long long*>(p), (unsigned long long)v); \
  }
GPU_ATOMIC_64(atomicAdd)
GPU_ATOMIC_64(atomicMin)
GPU_ATOMIC_64(atomicMax)
GPU_ATOMIC_64(atomicExch)
#undef GPU_ATOMIC_64
__device__ inline uint64_t atomicCAS(uint64_t* p, uint64_t expected, uint64_t v) {
  return atomicCAS(reinterpret_cast<unsigned long long*>(p), (unsigned long long)expected,
                   (unsigned long long)v);
}
#endif

#endif  // __CUDACC__

namespace gpu {
inline std::string launch_failure(const std::string& name, cudaError_t error) {
  return name + ": launch failed, " + reason_of(error);
}
}  // namespace gpu

#define GPU_LAUNCH(config, kernel, ...) ::gpu::launch(config, #kernel, kernel, __VA_ARGS__)

#include "cuda/gpu/ptx.h"
