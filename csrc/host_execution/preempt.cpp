// SPDX-License-Identifier: MIT
// Switches at memory accesses. Kernels are compiled with -fsanitize=thread but linked with these
// functions for its library's: the compiler puts a call to one of them at every access, and with
// HOST_EXECUTION_PREEMPT=n one call of n lets the other threads run.
#include "host_execution/internal.h"

namespace hx {
namespace {

void may_switch(const volatile void* address) {
  if (current == nullptr || options().preempt == 0) return;
  const auto* p = static_cast<const volatile char*>(address);
  const bool own = p >= current->fiber.stack && p < current->fiber.stack + stack_bytes();
  if (own || random_below(options().preempt) != 0) return;
  launched.preempted = true;
  yield();
}

}  // namespace
}  // namespace hx

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, unsigned long) { hx::may_switch(p); }
void __tsan_write_range(void* p, unsigned long) { hx::may_switch(p); }
void __tsan_atomic_signal_fence(int) {}
void __tsan_atomic_thread_fence(int) {}

#define ACCESS(kind, size) \
  void __tsan_##kind##size(void* p) { hx::may_switch(p); }
#define ACCESSES(kind) \
  ACCESS(kind, 1) ACCESS(kind, 2) ACCESS(kind, 4) ACCESS(kind, 8) ACCESS(kind, 16)
ACCESSES(read)
ACCESSES(write)
ACCESSES(unaligned_read)
ACCESSES(unaligned_write)
ACCESSES(volatile_read)
ACCESSES(volatile_write)

#define ATOMIC(bits, T)                                                                            \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    hx::may_switch(p);                                                                             \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                                      \
    hx::may_switch(p);                                                                             \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                                      \
    hx::may_switch(p);                                                                             \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                                     \
    hx::may_switch(p);                                                                             \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T v, int, int) {   \
    hx::may_switch(p);                                                                             \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }
ATOMIC(8, unsigned char)
ATOMIC(16, unsigned short)
ATOMIC(32, unsigned)
ATOMIC(64, unsigned long)

}  // extern "C"
