// SPDX-License-Identifier: MIT
// From logits to scored candidates, and the list of those that top_p and min_p might leave in.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/decode/constraints.h"
#include "cpu/decode/strategy.h"

namespace seq2seq_ext::kernels::cpu::decode {

struct VocabPartParams;

// A word's log-probability, and its score after penalties; both rounded to T, as results are.
struct Scored {
  double score, log_prob;
};

// `value`: the word's logit after constraints; max and log_sum: of the row's plain logits.
template <class T>
Scored scored(int64_t word, T value, T max, double log_sum, const RowConstraints* constraints,
              double repetition_penalty);

// One row's list; its memory stays from step to step.
class Nucleus {
 public:
  // Of lists of up to V words, so that list() allocates nothing.
  void reserve(int64_t V);

  // logits: (V) after constraints; tokens: (V) or null. log_probs: (V), where the logits are scores
  // already; max, log_sum and constraints then count for nothing.
  template <class T>
  void list(const T* logits, int64_t V, const int64_t* tokens, const VocabPartParams& params,
            const RowConstraints* constraints, T max, double log_sum, Candidates* out,
            const T* log_probs = nullptr);

 private:
  struct Word {
    double key;  // its score, over the temperature and relative to the best
    int64_t word;
  };
  std::vector<Word> words_;
  std::vector<int64_t> tokens_;
  std::vector<double> scores_, log_probs_;
};

}  // namespace seq2seq_ext::kernels::cpu::decode
