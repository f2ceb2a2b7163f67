// SPDX-License-Identifier: MIT
// The output layer's products, a block of words at a time, for one ISA: from weights as torch lays
// them out, or from panels.
#pragma once

#include "cpu/panels.h"
#include "cpu/row_products.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

constexpr int64_t kBlock = kVocabBlock;
constexpr int64_t kBlockStride =
    kBlock + 16;  // room for the tiles' overhang; rows start on cache lines

template <class S>
class VocabProduct {
 public:
  using T = AccOf<S>;
  using P = Product<S>;
  static constexpr int kGroup = kMaxTileRows<kWordVectors>;
  static constexpr int64_t kMostRows = std::max<int64_t>(8 * kTileRows, kGroup);  // of a pass
  static_assert(kBlock % kPanelWords<S> == 0, "blocks are whole panels");

  // For `most` rows of H features. lists: rows have words of their own. threads: of those that pack
  // a single row for themselves.
  VocabProduct(int64_t most, int64_t H, bool panels, bool lists = false, int threads = 0)
      : panels_(panels),
        lists_(lists),
        H_(H),
        stride_(padded_length<P>(H)),
        hidden_(panels ? 0 : most * stride_),
        grouped_(panels && !lists ? most : 0, H),
        single_(panels && lists ? most : 0, H),
        own_(panels && !lists ? threads : 0, H) {}

  // Rows [begin, end) of the `count` there are.
  void pack(const void* features, int64_t begin, int64_t end, int64_t count) const {
    const S* rows = static_cast<const S*>(features);
    if (!panels_) {
      pack_activations<P>(rows + begin * H_, end - begin, H_, hidden_.data() + begin * stride_);
      return;
    }
    for (int64_t b = begin; b < end; ++b) {
      if (lists_) {
        single_.pack(rows + b * H_, b, count);
      } else {
        grouped_.pack(rows + b * H_, b, count);
      }
    }
  }

  // The only row there is, for `member` alone: it reads it without a barrier.
  bool packs_for_itself() const { return panels_ && !lists_; }
  void pack_own(const void* features, int member) const {
    own_.pack(static_cast<const S*>(features), member, member + 1);
  }

  // Elements of a block's weights, as `gather` writes them.
  int64_t block_size() const { return kBlock * padded_k<S>(H_); }

  // Weight rows `words`, `count` of them, to where `block` reads them.
  void gather(const void* weight, const int64_t* words, int64_t count, S* to) const {
    const S* source = static_cast<const S*>(weight);
    for (int64_t i = 0; !panels_ && i < count; ++i) {
      std::copy_n(source + words[i] * H_, H_, to + i * H_);
    }
    for (int64_t i = 0; panels_ && i < kBlock; i += kPanelWords<S>) {
      pack_panel_rows<S, kWordVectors>(
          source, H_, H_, [&](int64_t j) { return i + j < count ? words[i + j] : -1; },
          to + i * padded_k<S>(H_));
    }
  }

  // Block `index` of a weight, or of its panels, whichever is to be read.
  const S* weights(const void* weight, const void* panels, int64_t index) const {
    return panels_ ? static_cast<const S*>(panels) + index * block_size()
                   : static_cast<const S*>(weight) + index * kBlock * H_;
  }

  // Rows that share a pass over a block.
  int64_t pass() const { return !panels_ ? rows_per_pass<P>(stride_) : lists_ ? 1 : kGroup; }

  // to[i][v] = word v of the block's `count` . row first + i, for the `rows` rows of a pass; rows
  // are kBlockStride apart, and undefined past `count`. [begin, end): all rows of the block. owner:
  // the member that has packed the only row for itself, or none (negative).
  void block(const S* weights, int64_t count, int64_t first, int64_t rows, int64_t begin,
             int64_t end, int owner, T* to) const {
    if (panels_) {
      const GroupOf group{(first - begin) / kGroup, (end - begin + kGroup - 1) / kGroup};
      const Term<S>* a = owner >= 0 ? own_.group(owner)
                         : lists_   ? single_.group(first)
                                    : grouped_.group(first);
      grouped_product<S, kWordVectors>(rows, weights, kBlock / kPanelWords<S>, H_, a,
                                       static_cast<const T*>(nullptr), group, to, kBlockStride);
    } else {
      row_products<P>(weights, H_, count, H_, hidden_.data() + first * stride_, stride_, rows, to,
                      kBlockStride, first == begin);
    }
  }

 private:
  const bool panels_, lists_;
  const int64_t H_, stride_;
  const ScratchArray<typename P::Activation> hidden_;  // (most, stride)
  const GroupedRows<S, kGroup> grouped_;
  const GroupedRows<S, 1> single_, own_;
};

}  // namespace
}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
