// SPDX-License-Identifier: MIT
// Greedy decoding, sampling and given tokens: each row goes its own way.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/decode/strategy.h"

namespace seq2seq_ext::kernels::cpu::decode {

class Picking : public Strategy {
 public:
  Picking(const DecodeOptions& options, const DecodeSources& sources, int64_t num_words);

  int64_t wanted() const override;
  void begin(int64_t source, Choice* choices) override;
  void advance(int64_t source, int64_t step, const Candidates* const* rows,
               const double* const* weights, Choice* choices) override;
  void finish(int64_t source, Hypothesis* hypotheses) override;

 private:
  // The index of the one that is drawn.
  int64_t draw(int64_t source, int64_t slot, int64_t step, const Candidates& candidates) const;
  // How many of the first candidates sampling draws from.
  int64_t truncated(const Candidates& candidates) const;
  bool goes_on(int64_t source, int64_t step, int64_t token) const;

  const DecodeOptions& options_;
  const int64_t num_words_;
  std::vector<int64_t> lengths_;  // (B, K)
};

}  // namespace seq2seq_ext::kernels::cpu::decode
