// SPDX-License-Identifier: MIT
// Reports: what went wrong, in which kernel, block and thread, at which line.
#include <signal.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "host_execution/internal.h"

namespace hx {

Error error;

namespace {

size_t write_thread(char* text, size_t size) {
  if (current == nullptr) {
    return static_cast<size_t>(std::snprintf(text, size, "host execution: %s: ", launched.name));
  }
  const uint3 b = current->block->index, t = current->index;
  return static_cast<size_t>(std::snprintf(
      text, size, "host execution: %s block (%u,%u,%u) thread (%u,%u,%u): ", launched.name, b.x,
      b.y, b.z, t.x, t.y, t.z));
}

}  // namespace

void fail(const char* format, ...) {
  char* text = error.text;
  size_t used = write_thread(text, sizeof error.text);
  used = used < sizeof error.text ? used : sizeof error.text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text + used, sizeof error.text - used, format, arguments);
  va_end(arguments);
  if (current == nullptr) throw error;
  current->state = State::kFailed;
  leave();
  std::abort();  // a failed thread is not resumed
}

void fail_stuck(const char* kind) {
  struct Group {
    unsigned threads = 0;
    const Thread* example = nullptr;
  };
  std::map<std::string, Group> groups;
  for (Block* b = launched.resident; b != nullptr; b = b->next) {
    for (unsigned i = 0; i < b->num_threads; ++i) {
      const Thread& t = b->threads[i];
      if (t.state == State::kDone) continue;
      const std::string where = std::string(t.waits_for ? t.waits_for : "nothing") + " at " +
                                name_of(t.at) + ":" + std::to_string(t.at.line);
      Group& group = groups[where];
      ++group.threads;
      if (group.example == nullptr) group.example = &t;
    }
  }
  std::string text;
  for (const auto& [where, group] : groups) {
    text += "\n  " + std::to_string(group.threads) + " thread(s) in " + where + ", e.g. block " +
            std::to_string(group.example->block->number) + " thread " +
            std::to_string(group.example->rank);
  }
  const uint64_t not_started = launched.waiting_blocks.size();
  if (not_started) {
    text += "\n  " + std::to_string(not_started) +
            " block(s) not started: the launch is not cooperative, blocks may not wait for each "
            "other";
  }
  const uint64_t exited = launched.threads - launched.remaining;
  if (exited) text += "\n  " + std::to_string(exited) + " thread(s) have exited";
  fail("%s%s", kind, text.c_str());
}

// ---- Crashes ------------------------------------------------------------------------------------
// Sanitizers have reports of their own.

#if defined(HX_ASAN) || defined(HX_WITH_TSAN)

CrashReports::CrashReports() {}
CrashReports::~CrashReports() {}

#else

namespace {

struct sigaction earlier_segv, earlier_bus, earlier_fpe;
stack_t earlier_stack;

const char* cause(int signal, const siginfo_t& info) {
  const auto within = [&](const void* from, size_t bytes) {
    const char* p = static_cast<const char*>(info.si_addr);
    return p >= from && p < static_cast<const char*>(from) + bytes;
  };
  if (signal == SIGFPE) return "integer division by zero or overflow";
  if (within(current->fiber.stack, 4096)) {
    return "stack overflow; HOST_EXECUTION_STACK=<KiB> gives more";
  }
  if (within(dynamic_shared(), kMostShared)) {
    return "access to dynamic shared memory past gpu::Carver";
  }
  // The processor's complaint about the instruction, not about the address.
  if (info.si_code == SI_KERNEL) return "misaligned vector access";
  return "access to memory that is not there";
}

void report_crash(int signal, siginfo_t* info, void*) {
  if (current != nullptr) {
    char text[512];
    write_thread(text, sizeof text);
    std::fprintf(stderr, "%s%s (address %p)\n", text, cause(signal, *info), info->si_addr);
  }
  sigaction(SIGSEGV, &earlier_segv, nullptr);
  sigaction(SIGBUS, &earlier_bus, nullptr);
  sigaction(SIGFPE, &earlier_fpe, nullptr);
}  // returns to the instruction, which fails again

}  // namespace

CrashReports::CrashReports() {
  // A stack of its own: the thread's may be what is used up.
  static char stack[64 << 10];
  stack_t alternative{};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof stack;
  sigaltstack(&alternative, &earlier_stack);
  struct sigaction action{};
  action.sa_sigaction = report_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &earlier_segv);
  sigaction(SIGBUS, &action, &earlier_bus);
  sigaction(SIGFPE, &action, &earlier_fpe);
}

CrashReports::~CrashReports() {
  sigaction(SIGSEGV, &earlier_segv, nullptr);
  sigaction(SIGBUS, &earlier_bus, nullptr);
  sigaction(SIGFPE, &earlier_fpe, nullptr);
  sigaltstack(&earlier_stack, nullptr);
}

#endif

}  // namespace hx
