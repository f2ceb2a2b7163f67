// SPDX-License-Identifier: MIT
// A team that hands plain memory from member to member across barriers, to be built with
// -fsanitize=thread. With -DBARRIER=0 members wait for each other by counting alone, which orders
// no memory: all goes well on this processor, and each hand-over is a race all the same.
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "common/runtime.h"
#include "cpu/team.h"

namespace {

constexpr int kThreads = 3, kSteps = 3000;

// Each step every member writes its share, and reads those of all the step before.
int64_t run(const seq2seq_ext::kernels::Runtime& runtime) {
  using seq2seq_ext::kernels::cpu::Member;
  std::vector<int64_t> even(64, 1), odd(64, 0), total(kThreads, 0);
  std::atomic<int64_t> arrived{0};
  seq2seq_ext::kernels::cpu::run_team(runtime, kThreads, [&](const Member& member) {
    for (int step = 0; step < kSteps; ++step) {
      const std::vector<int64_t>& from = step % 2 == 0 ? even : odd;
      std::vector<int64_t>& to = step % 2 == 0 ? odd : even;
      int64_t sum = 0;
      for (const int64_t value : from) sum += value;
      total[member.index] += sum;
      for (int64_t i = member.begin(64); i < member.end(64); ++i) to[i] = from[i] + 1;
      if (BARRIER) {
        member.barrier->wait();
        continue;
      }
      arrived.fetch_add(1, std::memory_order_relaxed);
      const int64_t all = int64_t{member.size} * (step + 1);
      while (arrived.load(std::memory_order_relaxed) < all) sched_yield();
    }
  });
  return total[0];
}

}  // namespace

int main() {
  const seq2seq_ext::kernels::Runtime runtime = seq2seq_ext::kernels::default_runtime(kThreads);
  const int64_t expected = int64_t{64} * kSteps * (kSteps + 1) / 2;
  for (int call = 0; call < 3; ++call) {
    if (run(runtime) != expected) return 1;
  }
  std::puts("done");
}
