// SPDX-License-Identifier: MIT
// What the steps chose, with a pointer from each choice to the slot it continues; and the rows of
// the result, followed back.
#pragma once

#include <cstdint>
#include <vector>

#include "common/decode.h"
#include "cpu/decode/strategy.h"

namespace seq2seq_ext::kernels::cpu::decode {

// One source's. Sources are written to by one thread each.
class Trace {
 public:
  Trace() = default;

  // For the first step: which slots have a row.
  void begin(int64_t slots, bool histories, bool attentions, int64_t positions);

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

  // Where this step's attention weights of a slot's row go: (positions); kept if `attentions`.
  double* attention(int64_t slot);

  // Appends the hypotheses: lengths, tokens, log-probabilities, ranks, attentions.
  void follow(const std::vector<Hypothesis>& found, bool beam);

  struct Row {
    double rank;
    std::vector<int64_t> tokens;
    std::vector<double> log_probs;
    std::vector<double> attentions;  // (length, positions)
  };
  const std::vector<Row>& rows() const { return rows_; }

  // Gives back everything but the rows; the source is done.
  void release();
  bool done() const { return choices_.empty(); }

  // The lowest slot with logits that were not finite, and its first such step; -1: none.
  int64_t undefined_slot = -1, undefined_step = -1;

 private:
  int64_t slots_ = 0, step_ = 0, positions_ = 0, history_size_ = 0;
  bool histories_ = false, attentions_ = false;
  std::vector<Choice> choices_;      // (1 + steps, slots)
  std::vector<int64_t> history_[2];  // (slots, history_size), by the parity of the step
  std::vector<double> weights_;      // (steps, slots, positions)
  std::vector<Row> rows_;
};

}  // namespace seq2seq_ext::kernels::cpu::decode
