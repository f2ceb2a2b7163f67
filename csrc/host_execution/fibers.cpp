// SPDX-License-Identifier: MIT
// Stacks and the switch between them.
#include <sys/mman.h>

#include <cstdlib>
#include <string>

#include "host_execution/internal.h"

#if !defined(__x86_64__) && !defined(HX_UCONTEXT)
#define HX_UCONTEXT 1
#endif
#if defined(HX_UCONTEXT)  // any machine, ten times slower: a switch is two system calls
#include <ucontext.h>
#endif

namespace hx {

__thread Thread* current = nullptr;

namespace {

// The main context: where the scheduler runs.
struct Main {
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
  void* tsan = nullptr;
} main_context;

std::vector<char*> free_stacks;
size_t stacks_made = 0;

}  // namespace

// ---- Stacks -------------------------------------------------------------------------------------

size_t stack_bytes() {
#if defined(HX_ASAN) || !defined(__OPTIMIZE__)
  constexpr size_t kDefault = 256 << 10;
#else
  constexpr size_t kDefault = 64 << 10;
#endif
  static const size_t bytes = (options().stack_bytes ? options().stack_bytes : kDefault) & ~4095;
  return bytes;
}

char* take_stack() {
  constexpr size_t kAtOnce = 64;
  // Each guard page makes two mappings of the kernel's, which allows 65530.
  constexpr size_t kGuarded = 16384;
  if (free_stacks.empty()) {
    const size_t bytes = stack_bytes();
    void* memory = mmap(nullptr, kAtOnce * bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stacks of %zu threads", stacks_made);
    for (size_t i = kAtOnce; i-- > 0;) {
      char* stack = static_cast<char*>(memory) + i * bytes;
      if (stacks_made < kGuarded) mprotect(stack, 4096, PROT_NONE);
      free_stacks.push_back(stack);
      ++stacks_made;
    }
  }
  char* stack = free_stacks.back();
  free_stacks.pop_back();
  return stack;
}

void give_back_stack(char* stack) {
#if defined(HX_ASAN)
  __asan_unpoison_memory_region(stack + 4096, stack_bytes() - 4096);
#endif
  free_stacks.push_back(stack);
}

// ---- ThreadSanitizer's fibers -------------------------------------------------------------------

#if defined(HX_WITH_TSAN)

namespace {
constexpr size_t kKept = 1024;  // a megabyte each
std::vector<void*> free_fibers, used_fibers;
}  // namespace

void* take_tsan_fiber() {
  if (free_fibers.empty()) return __tsan_create_fiber(0);
  void* fiber = free_fibers.back();
  free_fibers.pop_back();
  return fiber;
}

void give_back_tsan_fiber(void* fiber, bool ended) {
  // One that was left in the middle has functions open that never return.
  if (ended && free_fibers.size() + used_fibers.size() < kKept) {
    used_fibers.push_back(fiber);
  } else {
    __tsan_destroy_fiber(fiber);
  }
}

void launch_ended() {
  free_fibers.insert(free_fibers.end(), used_fibers.begin(), used_fibers.end());
  used_fibers.clear();
}

#else

void* take_tsan_fiber() { return nullptr; }
void give_back_tsan_fiber(void*, bool) {}
void launch_ended() {}

#endif

// ---- The switch ---------------------------------------------------------------------------------

extern "C" void hx_entry() {
  run_current_thread();
  std::abort();  // a thread that ended is not resumed
}

#if defined(HX_UCONTEXT)

namespace {

void start(Thread* t) {
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = t->fiber.stack;
  context->uc_stack.ss_size = stack_bytes();
  context->uc_link = nullptr;
  makecontext(context, hx_entry, 0);
  t->fiber.stack_pointer = context;
}
void switch_to(Thread* t) {
  ucontext_t here;
  main_context.stack_pointer = &here;
  swapcontext(&here, static_cast<ucontext_t*>(t->fiber.stack_pointer));
  if (t->state == State::kDone || t->state == State::kFailed) {
    delete static_cast<ucontext_t*>(t->fiber.stack_pointer);
  }
}
void switch_to_main() {
  swapcontext(static_cast<ucontext_t*>(current->fiber.stack_pointer),
              static_cast<ucontext_t*>(main_context.stack_pointer));
}

}  // namespace

#else

// hx_switch(save, load): pushes the registers that a call preserves, leaves the stack pointer in
// *save, takes `load` for it and pops. gdb/host_execution.py knows the order.
extern "C" void hx_switch(void** save, void* load);
extern "C" void hx_start();
asm(R"(
.text
.globl hx_switch
.hidden hx_switch
.type hx_switch,@function
hx_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hx_switch,.-hx_switch
.globl hx_start
.hidden hx_start
.type hx_start,@function
hx_start:
  .cfi_startproc
  .cfi_undefined rip
  call hx_entry
  ud2
  .cfi_endproc
.size hx_start,.-hx_start
)");

namespace {

void start(Thread* t) {
  // Each a different number of cache lines down, or all tops would share one set of the cache.
  const size_t shift = reinterpret_cast<uintptr_t>(t->fiber.stack) / stack_bytes() * 7 % 61 * 64;
  // Two words, so that hx_start's call finds the alignment the ABI asks for.
  void** top = reinterpret_cast<void**>(t->fiber.stack + stack_bytes() - shift) - 2;
  *--top = reinterpret_cast<void*>(&hx_start);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  t->fiber.stack_pointer = top;
}
void switch_to(Thread* t) { hx_switch(&main_context.stack_pointer, t->fiber.stack_pointer); }
void switch_to_main() { hx_switch(&current->fiber.stack_pointer, main_context.stack_pointer); }

}  // namespace

#endif

// Sanitizers are told before and after each switch.

void resume(Thread* t) {
  if (t->state == State::kFresh) {
    t->fiber.stack = take_stack();
    start(t);
  }
  t->state = State::kReady;
  current = t;
  ++stats.resumes;
#if defined(HX_ASAN)
  __sanitizer_start_switch_fiber(&main_context.fake_stack, t->fiber.stack, stack_bytes());
#endif
#if defined(HX_WITH_TSAN)
  main_context.tsan = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(t->fiber.tsan, 1);  // 1: orders nothing
#endif
  switch_to(t);
#if defined(HX_ASAN)
  __sanitizer_finish_switch_fiber(main_context.fake_stack, nullptr, nullptr);
#endif
  current = nullptr;
}

void leave() {
  [[maybe_unused]] Thread* t = current;
#if defined(HX_ASAN)
  const bool last = t->state == State::kDone || t->state == State::kFailed;
  __sanitizer_start_switch_fiber(last ? nullptr : &t->fiber.fake_stack, main_context.bottom,
                                 main_context.size);
#endif
#if defined(HX_WITH_TSAN)
  __tsan_switch_to_fiber(main_context.tsan, 1);
#endif
  switch_to_main();
#if defined(HX_ASAN)
  __sanitizer_finish_switch_fiber(t->fiber.fake_stack, &main_context.bottom, &main_context.size);
#endif
}

void run_current_thread() {
#if defined(HX_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &main_context.bottom, &main_context.size);
#endif
  tsan_acquire(&launched.start_order);
  // Reported after the handler: the fiber is never resumed, and would leave it open.
  static char thrown[256];
  thrown[0] = 0;
  try {
    launched.body(launched.arguments);
    finish_copies();
  } catch (const std::exception& e) {
    std::snprintf(thrown, sizeof thrown, "exception in the kernel: %s", e.what());
  } catch (...) {
    std::snprintf(thrown, sizeof thrown, "exception in the kernel");
  }
  if (thrown[0]) fail("%s", thrown);
  tsan_release(&launched.end_order);
  current->state = State::kDone;
  leave();
}

}  // namespace hx
