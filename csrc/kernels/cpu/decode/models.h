// SPDX-License-Identifier: MIT
// The models of a call as one: their stacks, and what they make of the vocabulary together.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/decode.h"
#include "cpu/decode/plan.h"
#include "cpu/decode/stack.h"

namespace seq2seq_ext::kernels::cpu::decode {

// The rows of a step; see Stack::set_rows and VocabPartParams.
struct StepRows {
  int64_t count;
  const int64_t* from;
  const int64_t* source;
  const DrawKey* keys;
  const WordList* lists;                     // or null
  const RowConstraints* const* constraints;  // or null
};

class Models {
 public:
  Models(const std::vector<DecodeMember>& members, const Plan& plan, const KernelTable& kernels,
         const Runtime& runtime, int threads);

  // Multiply-adds of a row's step.
  static int64_t work(const std::vector<DecodeMember>& members, int64_t words);

  // As Stack's functions of these names.
  void begin_step();
  void enter(int64_t source, int64_t place);
  void set_rows(const StepRows& rows);
  void gather(int64_t i, int64_t token);

  // By everybody of the team: see Stack. Barriers stand between the three and behind.
  void prepare(const Member& member);
  void run_layers(const Member& member);
  void run_vocab(const Member& member) {
    if (normalizer_ != nullptr) normalizer_->run(member);
    vocab().run(member);
  }

  // After a run: candidates, log-probabilities.
  VocabPart& vocab() { return ensemble_ != nullptr ? *ensemble_ : *parts_[0]; }

  // Of row i, widened: the attention weights (S), the mean of the models'; of one model s_t (P) and
  // c_t (C).
  void copy_weights(int64_t i, double* to) const;
  void copy_hidden(int64_t i, double* to) const { stacks_[0]->copy_hidden(i, to); }
  void copy_context(int64_t i, double* to) const { stacks_[0]->copy_context(i, to); }

 private:
  const std::vector<DecodeMember>& members_;
  std::vector<std::unique_ptr<Stack>> stacks_;
  std::vector<std::unique_ptr<ScratchArray<char>>> packed_;  // panels made for the call
  std::vector<std::unique_ptr<VocabPart>> parts_;
  // The screen's sums, where it does not choose: a token's log-probability is the same either way.
  std::unique_ptr<VocabPart> normalizer_;
  std::unique_ptr<VocabPart> ensemble_;
};

}  // namespace seq2seq_ext::kernels::cpu::decode
