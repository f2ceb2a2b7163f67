// SPDX-License-Identifier: MIT
// The only place with inline PTX. Every wrapper has a twin of the same name in
// host_execution/ptx_host.h, and a check in kernel_bench (case "ptx") that compares it, on a GPU or
// under host execution, with plain loops.
//
// Wrappers take generic pointers; the address within shared memory is made here. Those marked sm_90
// compile for every architecture and trap below it: the launcher decides by Device::arch, and no
// kernel needs to ask what it is compiled for.
#pragma once

#if !defined(__CUDACC__)
#include <host_execution/ptx_host.h>
#else

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define GPU_SM_90(...) __VA_ARGS__
#else
#define GPU_SM_90(...) __trap()
#endif

namespace gpu {

__device__ inline uint32_t smem_addr(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// ---- Lanes --------------------------------------------------------------------------------------

__device__ inline unsigned lane_id() {
  unsigned lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}
// The lanes below this one (lt), up to and with it (le), above it (gt), from it on (ge).
__device__ inline unsigned lane_mask_lt() {
  unsigned mask;
  asm("mov.u32 %0, %%lanemask_lt;" : "=r"(mask));
  return mask;
}
__device__ inline unsigned lane_mask_le() {
  unsigned mask;
  asm("mov.u32 %0, %%lanemask_le;" : "=r"(mask));
  return mask;
}
__device__ inline unsigned lane_mask_gt() {
  unsigned mask;
  asm("mov.u32 %0, %%lanemask_gt;" : "=r"(mask));
  return mask;
}
__device__ inline unsigned lane_mask_ge() {
  unsigned mask;
  asm("mov.u32 %0, %%lanemask_ge;" : "=r"(mask));
  return mask;
}

// ---- Tensor cores -------------------------------------------------------------------------------
// d += a b for one warp. Lane 4 g + t holds
//   m16n8k16: a[r] = A[g + 8 (r % 2)][2 t + 8 (r / 2) + {0, 1}], b[r] = B[2 t + 8 r + {0, 1}][g]
//   m16n8k8:  a[r] = A[g + 8 (r % 2)][t + 4 (r / 2)],            b[r] = B[t + 4 r][g]
//   both:     d[r] = D[g + 8 (r / 2)][2 t + r % 2]
// The last argument of m16n8k16 only names the type.

__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __nv_bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __half) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Rounds to nearest, ties away from zero. (The mma itself would cut off the low bits.)
__device__ inline uint32_t to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// Matrices of 8x8 16-bit elements from shared memory: lane 8 m + i gives the address of row i of
// matrix m (x2: lanes 0 to 15 do), 16-byte aligned. Lane 4 g + t gets r[m] = M[g][2 t + {0, 1}],
// transposed M[2 t + {0, 1}][g].
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_addr(row))
               : "memory");
}
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_addr(row))
               : "memory");
}
__device__ inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(smem_addr(row))
               : "memory");
}
__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(smem_addr(row))
               : "memory");
}

// ---- Asynchronous copies, global to shared
// ------------------------------------------------------- Both addresses are aligned to the size.
// Bytes from src_bytes on are zeros and are not read. 16 bytes go through the second-level cache
// only. A copy is there for this thread after the wait for its group, for others after a barrier
// besides.
__device__ inline void cp_async16(void* smem, const void* gmem, unsigned src_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_addr(smem)), "l"(gmem),
               "r"(src_bytes)
               : "memory");
}
// 4 or 8 bytes, by way of the first-level cache.
template <int N>
__device__ inline void cp_async(void* smem, const void* gmem, unsigned src_bytes = N) {
  static_assert(N == 4 || N == 8);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(smem_addr(smem)), "l"(gmem),
               "n"(N), "r"(src_bytes)
               : "memory");
}
// Closes this thread's group of copies.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of this thread's groups are under way.
template <int N>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- Flags in global memory ---------------------------------------------------------------------
// Scope: the whole GPU. What a thread wrote (or saw, through a barrier) before a release is seen by
// the thread whose acquire reads the released value, and by its block after a barrier.
__device__ inline unsigned ld_acquire(const unsigned* p) {
  unsigned v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ inline void st_release(unsigned* p, unsigned v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
// *p += v
__device__ inline void red_release(unsigned* p, unsigned v) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
// *p += v, returns what was there: a ticket. The block that draws the last one sees what all the
// others wrote before they drew theirs.
__device__ inline unsigned atomic_add_acq_rel(unsigned* p, unsigned v) {
  unsigned old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(old)
               : "l"(p), "r"(v)
               : "memory");
  return old;
}
// Orders nothing else; never from a stale cache line.
__device__ inline unsigned ld_relaxed(const unsigned* p) {
  unsigned v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ inline void st_relaxed(unsigned* p, unsigned v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

// ---- Loads and stores of 16 bytes, 16-byte aligned, global memory
// ---------------------------------- From the second-level cache: for what other blocks write while
// this kernel runs.
__device__ inline uint4 ld_cg16(const void* p) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}
__device__ inline void st_cg16(void* p, uint4 v) {
  asm volatile("st.global.cg.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}
// For what no one writes while this kernel runs and this block reads once, as a large weight: takes
// no room in the first-level cache.
__device__ inline uint4 ld_stream16(const void* p) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p));
  return v;
}
// Starts to bring the line of p into the second-level cache.
__device__ inline void prefetch_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// ---- Arithmetic ---------------------------------------------------------------------------------
// Relative error up to 2^-11: for 16-bit results that are not carried on, not for gates.
__device__ inline float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- Named barriers: some of a block's warps
// ------------------------------------------------------ id 1 to 15; `threads` counts all that
// arrive and sync, a multiple of 32; whole warps only.
__device__ inline void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Arrives, does not wait.
__device__ inline void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- Barriers in shared memory, bulk copies (sm_90)
// ----------------------------------------------- One thread initialises a barrier, fences, and the
// block synchronises before anyone uses it. A phase ends when `count` arrivals and all announced
// bytes are in; the first phase has parity 0.
__device__ inline void mbar_init(uint64_t* b, unsigned count) {
  GPU_SM_90(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_addr(b)),
                         "r"(count) : "memory"));
}
__device__ inline void fence_mbar_init() {
  GPU_SM_90(asm volatile("fence.mbarrier_init.release.cluster;" :: : "memory"));
}
__device__ inline void mbar_arrive(uint64_t* b) {
  GPU_SM_90(
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_addr(b)) : "memory"));
}
// Arrives, and announces bytes that bulk copies will bring in this phase.
__device__ inline void mbar_arrive_expect_tx(uint64_t* b, unsigned bytes) {
  GPU_SM_90(
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_addr(b)),
                   "r"(bytes) : "memory"));
}
// Whether the phase of this parity is over; may wait a little before it says no.
__device__ inline bool mbar_try_wait(uint64_t* b, unsigned parity) {
  uint32_t over = 0;
  GPU_SM_90(
      asm volatile("{\n"
                   ".reg .pred p;\n"
                   "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                   "selp.u32 %0, 1, 0, p;\n"
                   "}" : "=r"(over) : "r"(smem_addr(b)),
                   "r"(parity) : "memory"));
  return over != 0;
}
__device__ inline void mbar_wait(uint64_t* b, unsigned parity) {
  while (!mbar_try_wait(b, parity)) {
  }
}
// Addresses and size are multiples of 16. The bytes count towards the barrier's phase.
__device__ inline void bulk_copy_g2s(void* smem, const void* gmem, unsigned bytes, uint64_t* b) {
  GPU_SM_90(
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                   "[%0], [%1], %2, [%3];" ::"r"(smem_addr(smem)),
                   "l"(gmem), "r"(bytes), "r"(smem_addr(b)) : "memory"));
}
// Between this thread's own reads and writes of shared memory and a bulk copy that overwrites it.
__device__ inline void fence_proxy_async() {
  GPU_SM_90(asm volatile("fence.proxy.async.shared::cta;" :: : "memory"));
}

}  // namespace gpu

#undef GPU_SM_90
#endif
