// SPDX-License-Identifier: MIT
// A step's log-probabilities of all tokens, as a result keeps them.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "cpu/decode/constraints.h"
#include "cpu/decode/parts.h"

namespace seq2seq_ext::kernels::cpu::decode {

// to: (num_tokens) state from log_probs (words.count) state, -inf for tokens that are banned or
// have no word. words.tokens null: the same.
void keep_scores(DType state, const void* log_probs, const WordList& words,
                 const RowConstraints* constraints, int64_t num_tokens, void* to);

}  // namespace seq2seq_ext::kernels::cpu::decode
