// SPDX-License-Identifier: MIT
// The kernels of a decode step as the engine runs them: by a team that is there already, step after
// step, in work memory that stays. Each is compiled once per ISA (KernelTable::make_*); what they
// compute, to the bit, is what the ops of the same names do.
#pragma once

#include <cstdint>
#include <vector>

#include "common/params.h"
#include "common/philox.h"
#include "cpu/decode/constraints.h"
#include "cpu/decode/strategy.h"
#include "cpu/team.h"

namespace seq2seq_ext::kernels::cpu::decode {

// Between runs the caller changes the params' pointers and B, up to the B that the part was made
// for. Everybody of the team calls run; the caller puts a barrier before and behind it.

class StepPart {
 public:
  virtual ~StepPart();
  // Packs the member's share of the rows, which may be of its own making: a barrier stands only
  // between this and run.
  virtual void prepare(const Member& member) = 0;
  virtual void run(const Member& member) = 0;
  StepParams params;

 protected:
  explicit StepPart(const StepParams& most) : params(most) {}
};

class AttentionPart {
 public:
  virtual ~AttentionPart();
  // Every row's result is written by the member whose share the row is.
  virtual void run(const Member& member) = 0;
  AttentionStepParams params;

 protected:
  explicit AttentionPart(const AttentionStepParams& most) : params(most) {}
};

// What is wanted of the vocabulary: the K best words; one drawn from all; all that top_p and min_p
// might leave in; or nothing but the words that are forced.
enum class VocabTask : int { kBest, kDraw, kNucleus, kForced };

// Some words of a vocabulary: rows of its weights, ascending.
struct WordList {
  const int64_t* tokens = nullptr;  // (count)
  int64_t count = 0;
};

// The log of a row's sum of exponentials, max + log_sum; NaN: the row's logits are not finite.
struct Normalizer {
  double max, log_sum;
};

struct VocabPartParams {
  DType dtype;
  VocabTask task;
  int64_t B, H, V, K;     // K: kBest; kNucleus: top_k, 0: all
  const void* features;   // (B, H) dtype
  const void* weight;     // (V, H) dtype
  const void* bias;       // (V) dtype or null
  const int64_t* tokens;  // (V) as in DecodeModel
  double temperature, top_p, min_p, repetition_penalty;
  const RowConstraints* const* constraints = nullptr;  // (B); null: none
  const DrawKey* keys = nullptr;                       // (B), kDraw
  bool in_panels = false;        // multiplied from panels, of a list packed for each step
  const void* panels = nullptr;  // the weight's; null: there are lists
  DecodeScreen screen;           // kBest and kForced only; without panels: none
  const Normalizer* normalizers = nullptr;  // (B): those of a screen; null: the logits' own
  // (B): each row's own words, rows of the same list together; V is then their most, and `tokens`
  // counts for nothing. null: all V.
  const WordList* lists = nullptr;
  bool all = false;  // fill VocabPart::log_probs; not with a screen
};

class VocabPart {
 public:
  virtual ~VocabPart();
  // Every row's candidates are found by the member whose share the row is.
  virtual void run(const Member& member) = 0;
  VocabPartParams params;
  std::vector<Candidates> candidates;  // (B), after a run

  // With params.all: (B, stride) state, the model's of all words. NaN where a row has none.
  const void* log_probs = nullptr;
  int64_t log_probs_stride = 0;
  std::vector<Normalizer> normalizers;  // (B), of a screen
  std::vector<double> partitions;  // (B): what a row's log-probabilities are less than its logits

 protected:
  explicit VocabPart(const VocabPartParams& most)
      : params(most), candidates(most.B), partitions(most.all ? most.B : 0) {}
};

}  // namespace seq2seq_ext::kernels::cpu::decode
