// preempt.cpp - kernels are compiled with -fsanitize=thread but linked with these callbacks instead of
// libtsan: every memory access of a kernel becomes a point where the scheduler may switch fibers.
#include <host_execution/host_execution.h>
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
namespace hx { unsigned preempt_roll(); void preempt(); }
static inline void point(const void* p) {
  hx::Thread* t = hx::hx_cur;
  if (!t || !hx::options().preempt) return;
  const char* c = static_cast<const char*>(p);
  if (c >= t->stack && c < t->stack + (256 << 10)) return;      // own stack: not shared
  if (hx::preempt_roll() == 0) hx::preempt();
}
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define ACC(n) void __tsan_read##n(void* p) { point(p); } void __tsan_write##n(void* p) { point(p); } \
  void __tsan_unaligned_read##n(void* p) { point(p); } void __tsan_unaligned_write##n(void* p) { point(p); } \
  void __tsan_volatile_read##n(void* p) { point(p); } void __tsan_volatile_write##n(void* p) { point(p); }
ACC(1) ACC(2) ACC(4) ACC(8) ACC(16)
void __tsan_read_range(void* p, unsigned long) { point(p); }
void __tsan_write_range(void* p, unsigned long) { point(p); }
#define ATOM(n, T) \
  T __tsan_atomic##n##_load(const volatile T* p, int) { point((const void*)p); return __atomic_load_n(p, 5); } \
  void __tsan_atomic##n##_store(volatile T* p, T v, int) { point((const void*)p); __atomic_store_n(p, v, 5); } \
  T __tsan_atomic##n##_exchange(volatile T* p, T v, int) { point((const void*)p); return __atomic_exchange_n(p, v, 5); } \
  T __tsan_atomic##n##_fetch_add(volatile T* p, T v, int) { point((const void*)p); return __atomic_fetch_add(p, v, 5); } \
  T __tsan_atomic##n##_fetch_sub(volatile T* p, T v, int) { point((const void*)p); return __atomic_fetch_sub(p, v, 5); } \
  T __tsan_atomic##n##_fetch_or(volatile T* p, T v, int) { point((const void*)p); return __atomic_fetch_or(p, v, 5); } \
  T __tsan_atomic##n##_fetch_and(volatile T* p, T v, int) { point((const void*)p); return __atomic_fetch_and(p, v, 5); } \
  int __tsan_atomic##n##_compare_exchange_strong(volatile T* p, T* c, T v, int, int) { point((const void*)p); return __atomic_compare_exchange_n(p, c, v, false, 5, 5); } \
  int __tsan_atomic##n##_compare_exchange_weak(volatile T* p, T* c, T v, int, int) { point((const void*)p); return __atomic_compare_exchange_n(p, c, v, false, 5, 5); }
ATOM(8, unsigned char) ATOM(16, unsigned short) ATOM(32, unsigned) ATOM(64, unsigned long)
void __tsan_atomic_signal_fence(int) {}
void __tsan_atomic_thread_fence(int) {}
}
