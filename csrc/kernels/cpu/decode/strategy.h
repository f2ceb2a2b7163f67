// SPDX-License-Identifier: MIT
// What becomes of the candidates of a step: greedy decoding, sampling, beam search, given tokens.
// No model and no ISA here; seq2seq_ext/generation/{picking,beam}.py are the same in Python.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "common/decode.h"

namespace seq2seq_ext::kernels::cpu::decode {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The tokens that a row may choose: by descending score, of equals the lowest token first. Banned
// ones are not there; if there are none at all, nothing can follow.
struct Candidates {
  bool finite = true;  // false: the row's logits hold a NaN, +inf, or nothing but -inf; count is 0
  bool drawn = false;  // the one candidate is the draw
  int64_t count = 0;
  const int64_t* tokens = nullptr;
  const double* scores = nullptr;     // log-probability less penalties
  const double* log_probs = nullptr;  // the model's
  // Sampling without top_k: what the tokens that are not listed weigh, sum of exp((score - best
  // score) / temperature). They are listed if top_p or min_p might leave them in.
  double rest = 0;
};

// One slot's way from a step to the next.
struct Choice {
  int64_t token = 0;
  int64_t parent = 0;   // the slot that it continues
  double log_prob = 0;  // the model's
  bool live = false;    // it goes on: the next step has a row for it
};

// One row of the result, to be followed back through the choices.
struct Hypothesis {
  int64_t length = 0;
  int64_t slot = 0;     // kBeam: that which the last token continues; else that of all tokens
  int64_t token = 0;    // kBeam: the last, which may have taken it out of the slots
  double log_prob = 0;  // kBeam: of the last
  double rank = -kInfinity;
};

// All sources of a call. Calls for different sources may run at the same time.
class Strategy {
 public:
  virtual ~Strategy() = default;

  // How many candidates a row should have, if there are so many; 0: the draw alone.
  virtual int64_t wanted() const = 0;

  // What a source has at its first step: which slots have a row (K flags).
  virtual void begin(int64_t source, Choice* choices) = 0;

  // Step `step` of a source. rows: (K), of slots without a row null. weights: (K) attention weights
  // (S) of those rows, null unless there is a coverage penalty; length: the source's. Fills K
  // choices; those of slots that had no row, or have ended before, are not live. (A token chosen by
  // a row that ends is in its choice, with live = false.)
  virtual void advance(int64_t source, int64_t step, const Candidates* const* rows,
                       const double* const* weights, Choice* choices) = 0;

  // When no slot is live any more. Fills DecodeOptions::results of them, the best first.
  virtual void finish(int64_t source, Hypothesis* hypotheses) = 0;
};

std::unique_ptr<Strategy> make_strategy(const DecodeOptions& options, const DecodeSources& sources,
                                        int64_t num_words);

}  // namespace seq2seq_ext::kernels::cpu::decode
