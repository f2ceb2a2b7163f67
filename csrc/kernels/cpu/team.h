// SPDX-License-Identifier: MIT
// Threads that work through a sequence together: one parallel region for all steps, a barrier
// between steps.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

#include "common/runtime.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace seq2seq_ext::kernels::cpu {

inline void spin_pause(int64_t spins) {
  constexpr int64_t kSpinsBeforeYield = 512;  // ~10 us: beyond that the peer is not running
  if (spins >= kSpinsBeforeYield) {
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
    const int64_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int64_t spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins)
      spin_pause(spins);
  }

 private:
  int members_ = 1;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int64_t> phase_{0};
};

// One member's view of its team.
struct Member {
  int index;
  int size;
  Barrier* barrier;

  // This member's share of `count` items, as [begin, end): contiguous, as even as can be.
  int64_t begin(int64_t count) const { return count * index / size; }
  int64_t end(int64_t count) const { return count * (index + 1) / size; }
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
