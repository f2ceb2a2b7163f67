// SPDX-License-Identifier: MIT
// The words that an int8 screen (vocab_screen.h) cannot rule out, for one ISA. Included by
// vocab_<isa>.cpp only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "cpu/scratch.h"
#include "cpu/team.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

// A word that might be among the K best, or the best before constraints.
struct Survivor {
  float upper, plain;  // its logit is at most that, after constraints and before
  float quantised;     // that of the screen
  int32_t word;
};

// Which words are computed anew: those that may be chosen, and those that the sum wants.
struct Bounds {
  static constexpr float kAll = std::numeric_limits<float>::infinity(), kNone = -kAll;

  float least;  // the K-th largest lower end, after constraints
  float most;   // the largest, before
  bool chosen(const Survivor& s) const { return s.upper != kNone && !(s.upper < least); }
  bool summed(const Survivor& s) const { return !(s.plain < most); }
  bool take(const Survivor& s) const { return chosen(s) || summed(s); }
};

// Lists of them, one of each row and thread.
class Survivors {
 public:
  static constexpr int64_t kMost = 1024;  // of a list, and of a row; else all words are computed

  Survivors(int64_t B, int threads)
      : counts_(int64_t{threads} * B), survivors_(int64_t{threads} * B * kMost) {}

  void reset(int64_t B, const Member& member) {
    std::fill_n(counts_.data() + member.index * B, B, int64_t{0});
  }

  void keep(int64_t b, int64_t B, const Survivor& survivor, const Bounds& wanted,
            const Member& member) {
    const int64_t at = member.index * B + b;
    int64_t& count = counts_[at];
    Survivor* const list = survivors_.data() + at * kMost;
    if (count == kMost) {  // some have been overtaken since
      count =
          std::remove_if(list, list + count, [&](const Survivor& s) { return !wanted.take(s); }) -
          list;
    }
    if (count >= kMost) {
      count = kMost + 1;  // from now on: all words
    } else {
      list[count++] = survivor;
    }
  }

  // take(survivor) for a row's, by ascending word, whichever thread has found them, and before that
  // fetch(word). Returns false, and has taken none, where there were too many for the lists.
  template <class Fetch, class Take>
  bool each(int64_t b, int64_t B, const Bounds& wanted, const Member& member, const Fetch& fetch,
            const Take& take) {
    Survivor* const first = survivors_.data() + b * kMost;  // of the first thread
    int64_t total = 0;
    for (int i = 0; i < member.size; ++i) {
      const int64_t found = counts_[i * B + b];
      if (found > kMost) return false;
      Survivor* const list = survivors_.data() + (i * B + b) * kMost;
      for (int64_t j = 0; j < found; ++j) {
        if (!wanted.take(list[j])) continue;
        if (total == kMost) return false;
        first[total++] = list[j];  // never past what has been read of the first thread's
      }
    }
    std::sort(first, first + total,
              [](const Survivor& a, const Survivor& b) { return a.word < b.word; });
    for (int64_t j = 0; j < total; ++j) fetch(first[j].word);
    for (int64_t j = 0; j < total; ++j) take(first[j]);
    return true;
  }

 private:
  ScratchArray<int64_t> counts_;      // (threads, B)
  ScratchArray<Survivor> survivors_;  // (threads, B, kMost)
};

}  // namespace
}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
