// SPDX-License-Identifier: MIT
// What the steps chose, with a pointer from each choice to the slot it continues; and the rows of
// the result, followed back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/decode.h"
#include "cpu/decode/strategy.h"

namespace seq2seq_ext::kernels::cpu::decode {

// One source's. Sources are written to by one thread each.
class Trace {
 public:
  Trace() = default;

  // For the first step. extras: numbers kept of each row of each step; score_bytes: of the scores
  // that are. Room is made for `steps`, so that these allocate nothing; scores, which are large,
  // grow as they come.
  void begin(int64_t slots, int64_t steps, bool histories, int64_t extras, int64_t score_bytes);

  int64_t step() const { return step_; }
  int64_t slots() const { return slots_; }

  // The choices of the step before; of the first step what begin() of the strategy said.
  const Choice* last() const { return choices_.data() + step_ * slots_; }
  Choice* last() { return choices_.data() + step_ * slots_; }

  // Where this step's choices go; advance() makes them the last.
  Choice* next();
  void advance();

  // Tokens of a slot so far, step() of them; kept if `histories`.
  const int64_t* history(int64_t slot) const;

  // Where this step's extras of a slot's row go.
  double* extras(int64_t slot);
  char* scores(int64_t slot);

  // Appends the hypotheses: lengths, tokens, log-probabilities, ranks, extras.
  void follow(const std::vector<Hypothesis>& found, bool beam);

  struct Row {
    double rank;
    std::vector<int64_t> tokens;
    std::vector<double> log_probs;
    std::vector<double> extras;  // (length, extras)
    std::vector<char> scores;    // (length, score_bytes)
  };
  std::vector<Row>& rows() { return rows_; }

  // Gives back everything but the rows; the source is done.
  void release();
  bool done() const { return choices_.empty(); }

  // This step's logits of a slot are not finite. Of the lowest such slot the first step; -1: none.
  void note_undefined(int64_t slot);
  int64_t undefined_step() const { return undefined_step_; }

 private:
  int64_t slots_ = 0, step_ = 0, width_ = 0, score_bytes_ = 0, history_size_ = 0;
  bool histories_ = false;
  std::vector<Choice> choices_;  // (1 + steps, slots)
  // (slots, history_size), by the parity of the step; not touched before it is used.
  std::unique_ptr<int64_t[]> history_[2];
  std::vector<double> extras_;  // (steps, slots, width)
  std::vector<char> scores_;    // (steps, slots, score_bytes)
  std::vector<Row> rows_;
  int64_t undefined_slot_ = -1, undefined_step_ = -1;
};

// How many numbers of each kind a row keeps of a step, in the order of its extras.
struct Kept {
  int64_t S = 0, P = 0, C = 0;  // attention weights, of s_t, of c_t
  int64_t score_bytes = 0;
};

// The rows of all traces, `results` of each. Takes away from the traces what it has copied of their
// scores.
void assemble(std::vector<Trace>& traces, int64_t results, const Kept& kept,
              const std::function<void*(int64_t T)>& make_scores, DecodeResult* result);

}  // namespace seq2seq_ext::kernels::cpu::decode
