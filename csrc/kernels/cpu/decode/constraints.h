// SPDX-License-Identifier: MIT
// Which words a row may not choose, and whose logits it changes: seq2seq_ext/generation/
// {proposals,processors}.py in C++.
#pragma once

#include <cstdint>
#include <vector>

#include "common/decode.h"

namespace seq2seq_ext::kernels::cpu::decode {

// One row's constraints at one step. Words, ascending.
struct RowConstraints {
  const uint32_t* banned = nullptr;  // (ceil(V/32)) bits; null: none. Shared, not the row's own
  std::vector<int64_t> also_banned;  // by the row's history
  std::vector<int64_t> seen;         // words whose logits the repetition penalty changes
  int64_t forced = -1;               // the only word that is allowed, whatever is banned; -1: any
  std::vector<double> seen_logits;   // (seen): what these were; whoever changes them keeps it here

  void reserve(int64_t words);
};

class Constraints {
 public:
  // `tokens` as in DecodeModel: (num_words) or null. With options.shortlist num_words is V.
  Constraints(const DecodeOptions& options, int64_t batch, int64_t num_words,
              const int64_t* tokens);

  // Whether `history` is read.
  bool needs_history() const { return needs_history_; }

  // What a row's vectors may hold after so many steps.
  int64_t room(int64_t steps) const;

  // Whether anything at all may be constrained.
  bool any() const { return any_; }

  // history: the row's tokens so far, `step` of them. Reuses what `out` has allocated.
  void row(int64_t source, int64_t step, const int64_t* history, RowConstraints* out) const;

  int64_t word_of(int64_t source, int64_t token) const;  // -1: not in the shortlist

 private:
  void mark(int64_t row, int64_t num_words, uint32_t* late);

  const DecodeOptions& options_;
  const int64_t num_words_;
  const int64_t* const tokens_;
  bool needs_history_ = false, any_ = false;
  int64_t words32_ = 0;                 // ceil(the most words of a row / 32)
  std::vector<uint32_t> late_, early_;  // (1 or B, words32): from min_new_tokens on, and before it
};

// The logit z of a seen word after the penalty.
inline double penalize(double z, double penalty) { return z > 0 ? z / penalty : z * penalty; }

}  // namespace seq2seq_ext::kernels::cpu::decode
