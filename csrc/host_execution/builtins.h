// SPDX-License-Identifier: MIT
// Qualifiers, built-in variables, shared memory, block barriers.
#pragma once

#include <cuda_bf16.h>  // CUDA's own headers bring host versions of the 16-bit types
#include <cuda_fp16.h>

#include "host_execution/core.h"

// ---- Qualifiers: CUDA's headers make __global__ and __device__ empty for a host compiler
// ----------
#undef __shared__
#define __shared__ write_GPU_SHARED_instead_of___shared__
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __constant__
#define __constant__ static

#define threadIdx (::hx::current->index)
#define blockIdx (::hx::block().index)
#define blockDim (::hx::block().block_dim)
#define gridDim (::hx::block().grid_dim)
#define warpSize 32

// ---- Shared memory ------------------------------------------------------------------------------
// Every array and every piece that a Carver hands out is memory of its own, so that
// AddressSanitizer sees a step from one into the next. Aligned as much as CUDA promises and no
// more. It starts as all bits set: NaN, -1.

namespace hx {
void* static_shared(const void* tag, size_t bytes, size_t align);
void* carve(size_t offset, size_t bytes, size_t align, const Place& at);
// Whether these bytes lie in one piece of the block's shared memory.
bool in_shared(const void* p, size_t bytes);

// Stands for the launch's dynamic shared memory; only a Carver makes memory of it.
unsigned char* dynamic_shared();
}  // namespace hx

#define GPU_SHARED_ALIGNED(align, T, name, dims) \
  static char hx_tag_##name;                     \
  T(&name)                                       \
  dims = *reinterpret_cast<T(*) dims>(::hx::static_shared(&hx_tag_##name, sizeof(T dims), align))
#define GPU_SHARED(T, name, dims) GPU_SHARED_ALIGNED(alignof(T), T, name, dims)
#define GPU_DYN_SHARED(name) unsigned char* name = ::hx::dynamic_shared()

namespace gpu {

inline bool at_hand(int, int) { return true; }  // every device is played
using hx::launch;
using hx::max_active_blocks;

class Carver {
 public:
  explicit Carver(unsigned char* memory) {
    if (memory != hx::dynamic_shared()) hx::fail("a Carver takes what GPU_DYN_SHARED names");
  }
  template <class T>
  T* take(size_t count, size_t align = alignof(T), hx::Place at = HX_HERE) {
    used_ = (used_ + align - 1) / align * align;
    void* piece = hx::carve(used_, count * sizeof(T), align, at);
    used_ += count * sizeof(T);
    return static_cast<T*>(piece);
  }

 private:
  size_t used_ = 0;
};

}  // namespace gpu

// ---- Barriers -----------------------------------------------------------------------------------

namespace hx {
// Adds up `value` over the block, among those that arrive.
int block_barrier(int value, const char* what, const Place& at);
// Waits; orders what was before it for those who wait; only counts.
enum class Arrival { kWait, kRelease, kUnordered };
void named_barrier(int id, int threads, Arrival arrival, const Place& at);
void grid_barrier(const Place& at);
// Lets the others run: called by loops that poll.
void spin(const Place& at);
}  // namespace hx

inline void __syncthreads(hx::Place at = HX_HERE) { hx::block_barrier(0, "__syncthreads", at); }
inline int __syncthreads_or(int p, hx::Place at = HX_HERE) {
  return hx::block_barrier(p != 0, "__syncthreads_or", at) != 0;
}
inline int __syncthreads_and(int p, hx::Place at = HX_HERE) {
  return hx::block_barrier(p == 0, "__syncthreads_and", at) == 0;
}
inline int __syncthreads_count(int p, hx::Place at = HX_HERE) {
  return hx::block_barrier(p != 0, "__syncthreads_count", at);
}
// Fences say nothing to ThreadSanitizer, which will then see a race: use ld_acquire and its like.
inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __nanosleep(unsigned, hx::Place at = HX_HERE) { hx::spin(at); }
inline void __trap() { hx::fail("__trap()"); }

namespace gpu {
inline void spin_wait(hx::Place at = HX_HERE) { hx::spin(at); }
}  // namespace gpu
