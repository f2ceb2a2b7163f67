// SPDX-License-Identifier: MIT
// Several models' vocabularies as one: seq2seq_ext/generation/predictor.py's `_combine` in C++, to
// the bit.
#pragma once

#include <memory>
#include <vector>

#include "cpu/decode/parts.h"

namespace seq2seq_ext::kernels::cpu::decode {

// parts: of each model, made for the same rows and words: with `all`, for kForced. What follows
// from the mean of their log-probabilities, or from that of their probabilities, in the widest of
// their states, is the ensemble's.
std::unique_ptr<VocabPart> make_ensemble(const VocabPartParams& most,
                                         const std::vector<VocabPart*>& parts,
                                         bool log_probabilities, int threads);

}  // namespace seq2seq_ext::kernels::cpu::decode
