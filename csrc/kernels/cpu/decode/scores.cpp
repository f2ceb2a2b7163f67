// SPDX-License-Identifier: MIT
#include "cpu/decode/scores.h"

#include <algorithm>
#include <limits>

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

template <class T>
void keep(const T* log_probs, const WordList& words, const RowConstraints* c, int64_t num_tokens,
          T* to) {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  const auto token = [&](int64_t word) {
    return words.tokens == nullptr ? word : words.tokens[word];
  };
  std::fill_n(to, num_tokens, kNone);
  if (c != nullptr && c->forced >= 0) {
    to[token(c->forced)] = log_probs[c->forced];
    return;
  }
  for (int64_t v = 0; v < words.count; ++v) to[token(v)] = log_probs[v];
  if (c == nullptr) return;
  for (int64_t v = 0; c->banned != nullptr && v < words.count; ++v) {
    if (c->banned[v / 32] >> (v % 32) & 1) to[token(v)] = kNone;
  }
  for (int64_t v : c->also_banned) to[token(v)] = kNone;
}

}  // namespace

void keep_scores(DType state, const void* log_probs, const WordList& words,
                 const RowConstraints* constraints, int64_t num_tokens, void* to) {
  if (state == DType::kFloat64) {
    keep(static_cast<const double*>(log_probs), words, constraints, num_tokens,
         static_cast<double*>(to));
  } else {
    keep(static_cast<const float*>(log_probs), words, constraints, num_tokens,
         static_cast<float*>(to));
  }
}

}  // namespace seq2seq_ext::kernels::cpu::decode
