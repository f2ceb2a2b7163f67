// SPDX-License-Identifier: MIT
// Logits of single words from weights as torch lays them out, to the bit those that VocabPart has
// from panels: a vector of words is packed and multiplied at a time.
#pragma once

#include "cpu/panels.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

template <class S>
class VocabRescore {
 public:
  using T = AccOf<S>;
  static constexpr int kWords = kLanesOf<S>;

  VocabRescore(int64_t H, int threads) : H_(H), panels_(threads * panel_size<S, 1>(H)) {}

  // logits[i] of words[i], i < count <= kWords, for a row of GroupedRows<S, 1>; bias: null or (V).
  void run(const void* weight, const void* bias, const Term<S>* row, const int64_t* words,
           int count, const Member& member, T* logits) const {
    S* const panel = panels_.data() + member.index * panel_size<S, 1>(H_);
    pack_panel_rows<S, 1>(
        static_cast<const S*>(weight), H_, H_, [&](int64_t j) { return j < count ? words[j] : -1; },
        panel);
    alignas(64) T sums[kWords];
    grouped_tile<S, 1, 1, 1>(panel, 0, terms<S>(H_), row, nullptr, sums, 0);
    for (int i = 0; i < count; ++i) {
      logits[i] =
          sums[i] + (bias == nullptr ? T(0) : to_acc(static_cast<const S*>(bias)[words[i]]));
    }
  }

  // Fetches a word's weights, which lie anywhere, into the second-level cache.
  void fetch(const void* weight, int64_t word) const {
    const char* row = reinterpret_cast<const char*>(static_cast<const S*>(weight) + word * H_);
    const int64_t bytes = H_ * static_cast<int64_t>(sizeof(S));
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
  }

 private:
  const int64_t H_;
  const ScratchArray<S> panels_;  // (threads): a panel of kWords words each
};

}  // namespace
}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
