// SPDX-License-Identifier: MIT
// Threads that work through a sequence together: one parallel region for all steps, a barrier
// between steps.
#pragma once

#include <sched.h>

#include <atomic>
#include <climits>
#include <cstdint>

#include "common/runtime.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace seq2seq_ext::kernels::cpu {

// How a thread waits for one that should be there any moment: it spins for about 10 us, then
// yields. After kSpins + kYields the other is clearly not running, and waiting on only keeps it
// from running.
constexpr int kSpins = 2048, kYields = 8;

inline void spin_pause(int64_t spins) {
  if (spins >= kSpins) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  _mm_pause();
#endif
}

class Barrier {
 public:
  void reset(int members) { members_ = members; }

  void wait() {
    if (members_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1);  // before the load of sleepers_, as a sleeper counts itself first
      if (sleepers_.load() != 0) wake();
      return;
    }
    for (int64_t spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
      if (spins < kSpins + kYields) {
        spin_pause(spins);
      } else {
        sleepers_.fetch_add(1);
        sleep(phase);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
    }
  }

 private:
  // Sleeps while the phase is `phase`; may return early.
  void sleep(uint32_t phase) {
#if defined(__linux__)
    syscall(SYS_futex, address(), FUTEX_WAIT_PRIVATE, phase, nullptr, nullptr, 0);
#else
    sched_yield();
#endif
  }
  void wake() {
#if defined(__linux__)
    syscall(SYS_futex, address(), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
  }
  uint32_t* address() { return reinterpret_cast<uint32_t*>(&phase_); }

  int members_ = 1;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain word");
  std::atomic<int> sleepers_{0};
};

// One member's view of its team.
struct Member {
  int index;
  int size;
  Barrier* barrier;

  // This member's share of `count` items, as [begin, end): contiguous, as even as can be. A single
  // one is the first member's.
  int64_t begin(int64_t count) const { return (count * index + size - 1) / size; }
  int64_t end(int64_t count) const { return (count * (index + 1) + size - 1) / size; }
};

// Runs body(Member) on up to `threads` threads at once. Fewer run if the host grants fewer (a
// nested call gets one): Member::size says how many there are. The host must run its chunks all at
// the same time, as OpenMP and default_runtime() do, for the members wait for each other.
template <class Body>
void run_team(const Runtime& runtime, int threads, const Body& body) {
  Barrier barrier;
  if (threads <= 1 || runtime.parallel_for == nullptr) {
    body(Member{0, 1, &barrier});
    return;
  }
  struct Context {
    const Body* body;
    Barrier* barrier;
    int threads;
    std::atomic<int64_t> chunk{0};
  } context{&body, &barrier, threads};
  runtime.parallel_for(
      threads,
      [](int64_t begin, int64_t end, void* opaque) {
        Context& c = *static_cast<Context*>(opaque);
        // The host cuts [0, threads) into equal chunks, one a thread: the first chunk's length
        // tells everyone the number of threads that really run.
        if (begin == 0) {
          c.barrier->reset(static_cast<int>((c.threads + end - 1) / end));
          c.chunk.store(end, std::memory_order_release);
        }
        int64_t chunk;
        for (int64_t spins = 0; (chunk = c.chunk.load(std::memory_order_acquire)) == 0; ++spins)
          spin_pause(spins);
        const int size = static_cast<int>((c.threads + chunk - 1) / chunk);
        (*c.body)(Member{static_cast<int>(begin / chunk), size, c.barrier});
      },
      &context);
}

}  // namespace seq2seq_ext::kernels::cpu
