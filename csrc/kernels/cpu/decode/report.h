// SPDX-License-Identifier: MIT
// Tells the caller of each step (DecodeOptions::on_step).
#pragma once

#include <cstdint>
#include <vector>

#include "common/decode.h"
#include "cpu/decode/strategy.h"

namespace seq2seq_ext::kernels::cpu::decode {

class Report {
 public:
  Report(const DecodeOptions& options, int64_t sources);

  bool wanted() const { return options_.on_step != nullptr; }

  // A source's step. candidates: (K), null where a slot had no row. live: whether it goes on.
  void note(int64_t source, const Choice* choices, const Candidates* const* candidates, bool live);

  // Once all sources have been noted. Returns whether to go on.
  bool tell();

 private:
  const DecodeOptions& options_;
  int64_t step_ = 0;
  std::vector<int64_t> tokens_, parents_;  // (B, K), and so below
  std::vector<double> log_probs_;
  std::vector<uint8_t> done_;
};

}  // namespace seq2seq_ext::kernels::cpu::decode
