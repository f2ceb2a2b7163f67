// gpu.h - the one header kernel sources include. Under nvcc it is CUDA plus a few macros;
// under a host C++ compiler it is the host execution layer.
#pragma once
#if defined(__CUDACC__)
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cstdint>
#include <utility>
#define GPU_SHARED(T, name, dims) __shared__ T name dims
#define GPU_DYN_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
namespace gpu {
struct Config { dim3 grid{1}, block{1}; size_t smem = 0; cudaStream_t stream = nullptr; bool cooperative = false; };
template <class... P, class... A>
cudaError_t launch(const Config& c, const char*, void (*kernel)(P...), A&&... a) {
  if (c.smem > 48 * 1024)
    if (cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(c.smem))) return e;
  cudaLaunchAttribute at[1];
  at[0].id = cudaLaunchAttributeCooperative;
  at[0].val.cooperative = 1;
  cudaLaunchConfig_t lc{};
  lc.gridDim = c.grid; lc.blockDim = c.block; lc.dynamicSmemBytes = c.smem; lc.stream = c.stream;
  lc.attrs = at; lc.numAttrs = c.cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&lc, kernel, static_cast<P>(std::forward<A>(a))...);
}
// Hands out aligned pieces of dynamic shared memory. On the host each piece is a heap block of its own.
struct Carver {
  unsigned char* base; size_t off = 0;
  __device__ explicit Carver(unsigned char* p) : base(p) {}
  template <class T> __device__ T* take(size_t n, size_t align = alignof(T)) {
    off = (off + align - 1) / align * align;
    T* r = reinterpret_cast<T*>(base + off);
    off += n * sizeof(T);
    return r;
  }
};
__device__ inline void spin_wait() { __nanosleep(32); }
}  // namespace gpu
#else
#include <host_execution/host_execution.h>
namespace gpu {
using hx::Config;
using hx::launch;
struct Carver {
  size_t off = 0;
  explicit Carver(unsigned char*) { hx::hx_cur->carve = 0; }
  template <class T> T* take(size_t n, size_t align = alignof(T), HX_WHERE) {
    off = (off + align - 1) / align * align;
    T* r = static_cast<T*>(hx::dyn_carve(off, n * sizeof(T), align, HX_AT));
    off += n * sizeof(T);
    return r;
  }
};
inline void spin_wait(HX_WHERE) { hx::spin_yield(HX_AT); }
}  // namespace gpu
#endif
#define GPU_LAUNCH(cfg, kernel, ...) ::gpu::launch(cfg, #kernel, kernel, __VA_ARGS__)
#include "cuda/gpu/ptx.h"
