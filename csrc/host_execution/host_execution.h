// host_execution.h - host execution layer: runs CUDA kernels, compiled as host C++, with the
// CUDA execution model emulated by fibers (one fiber per CUDA thread, one OS thread).
// Included by gpu/gpu.h when the compiler is not nvcc. Runtime in src/host_execution.cpp.
#pragma once
#include <cuda_runtime_api.h>   // types only (dim3, cudaError_t, cudaStream_t); no libcudart is linked
#include <vector_functions.h>
#include <cuda_bf16.h>          // CUDA's own headers give host implementations of the 16-bit types
#include <cuda_fp16.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_THREAD__)
#define HX_TSAN 1
#endif
#define HX_QUIET __attribute__((no_sanitize("thread"), noinline))  // not instrumented: emulator internals

// ---- qualifiers (CUDA's host_defines.h already made __global__/__device__ empty for g++) ----
#undef __shared__
#define __shared__ ERROR_write_GPU_SHARED_instead
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __constant__
#define __constant__ static
#define HX_WHERE const char* hx_file = __builtin_FILE(), int hx_line = __builtin_LINE()
#define HX_AT hx_file, hx_line

namespace hx {
struct Block;
struct Warp;
struct Async;
struct Thread {                       // one CUDA thread
  uint3 tid{};
  unsigned linear = 0, lane = 0, carve = 0;
  Block* block = nullptr;
  Warp* warp = nullptr;
  Async* async = nullptr;             // pending cp.async copies
  Thread* next = nullptr;             // in a waiting list
  void* sp = nullptr;                 // saved stack pointer
  char* stack = nullptr;
  void* fake = nullptr;               // ASan fake stack
  void* tsan = nullptr;               // TSan fiber
  int state = 0;
  const char* what = nullptr;         // what it waits for, and where
  const char* file = nullptr;
  int line = 0;
};
struct BlockView { uint3 bid; dim3 bdim, gdim; };   // first member of Block
extern __thread Thread* hx_cur;
inline const BlockView& view() { return *reinterpret_cast<const BlockView*>(hx_cur->block); }

// ---- runtime entry points (src/host_execution.cpp) ----
struct Config {
  dim3 grid{1}, block{1};
  size_t smem = 0;
  cudaStream_t stream = nullptr;
  bool cooperative = false;
};
struct Stats { uint64_t threads = 0, resumes = 0, collectives = 0, barriers = 0, spins = 0, stacks = 0; double seconds = 0; };
extern Stats last, total;
struct Options {
  enum Policy { Fifo, Lifo, Random } policy = Random;
  enum AsyncMode { Eager, Lazy, Mixed } async = Mixed;
  uint64_t seed = 1;
  bool strict = true;        // divergent barriers, exits past a barrier, bad masks are errors
  bool poison = true;        // shared memory starts as 0xFF (NaN / -1)
  unsigned resident = 3;     // blocks interleaved in a non-cooperative launch
  unsigned preempt = 0;      // with -fsanitize=thread + own callbacks: switch at 1/preempt of accesses
  const char* skip = "";     // "file.cuh:123,..." synchronisation sites to ignore (mutation testing)
  size_t smem_limit = 232448;// bytes of dynamic+static shared memory per block (sm_90)
  unsigned sms = 132;        // for the co-residency check of cooperative launches
};
Options& options();          // first use reads HOST_EXECUTION_* from the environment
struct Error { char text[2048]; };
void run(const Config&, const char* name, void (*body)(void*), void* args);   // throws Error
[[noreturn]] void fail(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
void* static_shared(const void* tag, size_t bytes, size_t align);
void* dyn_shared();
size_t dyn_shared_size();
void* dyn_carve(size_t offset, size_t bytes, size_t align, const char* file, int line);
bool in_shared(const void* p, size_t bytes);
int block_barrier(int id, unsigned nthreads, int value, const char* what, const char* file, int line);
void grid_barrier(const char* file, int line);
void spin_yield(const char* file, int line);
bool skipped(const char* file, int line);
struct Op { const char* name; void (*exec)(unsigned mask, void** payload); };
void warp_collective(const Op*, unsigned mask, void* payload, const char* file, int line);
void async_issue(void* dst, const void* src, unsigned bytes, unsigned copy_bytes, const char* file, int line);
void async_commit();
void async_wait(unsigned keep_groups);
void list_sites();

template <class... P, class... A>
cudaError_t launch(const Config& cfg, const char* name, void (*kernel)(P...), A&&... a) {
  struct Pack { void (*k)(P...); std::tuple<P...> args; } pack{kernel, std::tuple<P...>(std::forward<A>(a)...)};
  run(cfg, name, [](void* p) { auto* q = static_cast<Pack*>(p); std::apply(q->k, q->args); }, &pack);
  return cudaSuccess;
}
}  // namespace hx

// ---- built-in variables ----
#define threadIdx (::hx::hx_cur->tid)
#define blockIdx (::hx::view().bid)
#define blockDim (::hx::view().bdim)
#define gridDim (::hx::view().gdim)
#define warpSize 32

// ---- shared memory: each array is its own heap block, one per CUDA block, so ASan has redzones ----
#define GPU_SHARED(T, name, dims)                                                       \
  static char hx_tag_##name;                                                            \
  T(&name) dims = *reinterpret_cast<T(*) dims>(::hx::static_shared(&hx_tag_##name, sizeof(T dims), alignof(T)))
#define GPU_DYN_SHARED(name) unsigned char* name = static_cast<unsigned char*>(::hx::dyn_shared())

// ---- barriers ----
inline void __syncthreads(HX_WHERE) { hx::block_barrier(0, 0, 0, "__syncthreads", HX_AT); }
inline int __syncthreads_or(int p, HX_WHERE) { return hx::block_barrier(0, 0, p != 0, "__syncthreads_or", HX_AT) != 0; }
inline int __syncthreads_count(int p, HX_WHERE) { return hx::block_barrier(0, 0, p != 0, "__syncthreads_count", HX_AT); }
inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __nanosleep(unsigned, HX_WHERE) { hx::spin_yield(HX_AT); }
inline void __trap() { hx::fail("__trap()"); }

// ---- warp collectives: the last lane to arrive does the work for all ----
namespace hx {
struct Nothing {};
HX_QUIET inline void exec_nothing(unsigned, void**) {}
inline const Op op_syncwarp{"__syncwarp", exec_nothing};
template <class T> struct Shfl { T in, out; int src; bool bad; };
template <class T> HX_QUIET void exec_shfl(unsigned mask, void** p) {
  for (int l = 0; l < 32; ++l) if (mask >> l & 1) {
    auto* me = static_cast<Shfl<T>*>(p[l]);
    me->bad = !(mask >> me->src & 1);
    me->out = me->bad ? me->in : static_cast<Shfl<T>*>(p[me->src])->in;
  }
}
template <class T> struct ShflOp { static inline const Op op{"__shfl_sync", exec_shfl<T>}; };
template <class T> T shfl(unsigned mask, T v, int src, const char* f, int l) {
  static_assert(std::is_trivially_copyable_v<T>);
  Shfl<T> s{v, v, src, false};
  warp_collective(&ShflOp<T>::op, mask, &s, f, l);
  if (s.bad) fail("%s:%d: shuffle reads lane %d, which is not in the mask 0x%08x or has exited", f, l, src, mask);
  return s.out;
}
struct Vote { int pred; unsigned out; };
HX_QUIET inline void exec_vote(unsigned mask, void** p) {
  unsigned b = 0;
  for (int l = 0; l < 32; ++l) if ((mask >> l & 1) && static_cast<Vote*>(p[l])->pred) b |= 1u << l;
  for (int l = 0; l < 32; ++l) if (mask >> l & 1) static_cast<Vote*>(p[l])->out = b;
}
inline const Op op_vote{"__ballot_sync/__any_sync/__all_sync", exec_vote};
inline unsigned ballot(unsigned mask, int pred, const char* f, int l) {
  Vote v{pred, 0};
  warp_collective(&op_vote, mask, &v, f, l);
  return v.out;
}
}  // namespace hx
inline void __syncwarp(unsigned mask = 0xffffffffu, HX_WHERE) { hx::Nothing n; hx::warp_collective(&hx::op_syncwarp, mask, &n, HX_AT); }
template <class T> T __shfl_sync(unsigned m, T v, int src, int w = 32, HX_WHERE) {
  int lane = hx::hx_cur->lane;
  return hx::shfl(m, v, (lane & ~(w - 1)) | (src & (w - 1)), HX_AT);
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, HX_WHERE) {
  int lane = hx::hx_cur->lane, s = lane - int(d);
  return hx::shfl(m, v, s < (lane & ~(w - 1)) ? lane : s, HX_AT);
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, HX_WHERE) {
  int lane = hx::hx_cur->lane, s = lane + int(d);
  return hx::shfl(m, v, s > (lane | (w - 1)) ? lane : s, HX_AT);
}
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, HX_WHERE) {
  int lane = hx::hx_cur->lane, s = lane ^ x;
  return hx::shfl(m, v, s > (lane | (w - 1)) ? lane : s, HX_AT);
}
inline unsigned __ballot_sync(unsigned m, int p, HX_WHERE) { return hx::ballot(m, p, HX_AT); }
inline int __any_sync(unsigned m, int p, HX_WHERE) { return hx::ballot(m, p, HX_AT) != 0; }
inline int __all_sync(unsigned m, int p, HX_WHERE) { return hx::ballot(m, !p, HX_AT) == 0; }

// ---- atomics: relaxed, as in CUDA (fibers share one OS thread; the builtins matter to TSan) ----
namespace hx {
template <class T, class F> T rmw(T* p, F f) {
  using U = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  U* q = reinterpret_cast<U*>(p);
  U old = __atomic_load_n(q, __ATOMIC_RELAXED), nu;
  T o;
  do { std::memcpy(&o, &old, sizeof o); T n = f(o); std::memcpy(&nu, &n, sizeof n); }
  while (!__atomic_compare_exchange_n(q, &old, nu, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return o;
}
template <class T> struct id { using type = T; };
}  // namespace hx
template <class T> T atomicAdd(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T o) { return T(o + v); }); }
template <class T> T atomicSub(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T o) { return T(o - v); }); }
template <class T> T atomicMax(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T o) { return o < v ? v : o; }); }
template <class T> T atomicMin(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T o) { return v < o ? v : o; }); }
template <class T> T atomicOr(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T o) { return T(o | v); }); }
template <class T> T atomicAnd(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T o) { return T(o & v); }); }
template <class T> T atomicExch(T* p, typename hx::id<T>::type v) { return hx::rmw(p, [=](T) { return v; }); }
template <class T> T atomicCAS(T* p, typename hx::id<T>::type c, typename hx::id<T>::type v) {
  return hx::rmw(p, [=](T o) { return o == c ? v : o; });
}

// ---- device intrinsics the CUDA headers do not give to the host ----
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcg(T* p, T v) { *p = v; }
template <class T> void __stcs(T* p, T v) { *p = v; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.f / a; }
inline float rsqrtf(float a) { return 1.f / std::sqrt(a); }
inline int __float_as_int(float f) { int i; std::memcpy(&i, &f, 4); return i; }
inline unsigned __float_as_uint(float f) { unsigned i; std::memcpy(&i, &f, 4); return i; }
inline float __int_as_float(int i) { float f; std::memcpy(&f, &i, 4); return f; }
inline float __uint_as_float(unsigned i) { float f; std::memcpy(&f, &i, 4); return f; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline __half __hfma(__half a, __half b, __half c) { return __float2half_rn(float(double(float(a)) * float(b) + float(c))); }
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) { return __float2bfloat16_rn(float(double(float(a)) * float(b) + float(c))); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

// ---- cooperative groups: the small part that is used ----
namespace cooperative_groups {
struct grid_group {
  void sync(HX_WHERE) const { hx::grid_barrier(HX_AT); }
  unsigned num_blocks() const { return gridDim.x * gridDim.y * gridDim.z; }
};
inline grid_group this_grid() { return {}; }
struct thread_block { void sync(HX_WHERE) const { __syncthreads(HX_AT); } unsigned thread_rank() const { return hx::hx_cur->linear; } };
inline thread_block this_thread_block() { return {}; }
template <unsigned N> struct thread_block_tile {
  unsigned thread_rank() const { return hx::hx_cur->lane % N; }
  unsigned mask() const { return N == 32 ? 0xffffffffu : ((1u << N) - 1) << (hx::hx_cur->lane / N * N); }
  void sync(HX_WHERE) const { __syncwarp(mask(), HX_AT); }
  template <class T> T shfl(T v, int s, HX_WHERE) const { return __shfl_sync(mask(), v, s, N, HX_AT); }
  template <class T> T shfl_xor(T v, int x, HX_WHERE) const { return __shfl_xor_sync(mask(), v, x, N, HX_AT); }
  template <class T> T shfl_down(T v, unsigned d, HX_WHERE) const { return __shfl_down_sync(mask(), v, d, N, HX_AT); }
};
template <unsigned N> thread_block_tile<N> tiled_partition(const thread_block&) { return {}; }
}  // namespace cooperative_groups
