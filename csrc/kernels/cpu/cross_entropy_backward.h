// SPDX-License-Identifier: MIT
// Linear + cross-entropy, backward, for one ISA. The logits are made again, kChunk words by kBlock
// rows at a time, and become their gradients dz; dW of the chunk and dx are products with dz. Both
// cuts are the same whatever the threads, and so is every sum.
//
// Of a chunk a thread owns some words: their logits, dz and dW. Of a block it owns some rows: their
// dx. One barrier a block, between dz and dx; what crosses it is kept twice.
#pragma once

#include "cpu/cross_entropy_rows.h"
#include "cpu/micro.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class S>
class CrossEntropyBackward {
 public:
  using T = AccOf<S>;
  using V = Vec<T>;
  using P = Product<S>;
  using Block = WordBlock<S>;
  static constexpr int NV = 4;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kColumns = NV * kLanes;  // of a panel
  static constexpr int64_t kChunk = kKeptWords, kBlock = 256;

  explicit CrossEntropyBackward(const CrossEntropyBackwardParams& p)
      : p_(p),
        in_(p.in),
        rows_(p.in),
        weights_(p.in),
        count_(rows_.count()),
        blocks_((count_ + kBlock - 1) / kBlock),
        panels_((in_.H + kColumns - 1) / kColumns),
        stride_(padded_length<P>(in_.H)),
        hidden_(count_ * stride_),
        scales_(3 * count_),
        x_panels_(p.d_weight ? blocks_ * panels_ * kBlock * kColumns : 0),
        w_panels_(p.d_hidden ? 2 * panels_ * kChunk * kColumns : 0),
        dz_(2 * kBlock * kChunk),
        dz_columns_(kChunk * kBlock),
        dw_(is_wide() || p.d_weight == nullptr ? 0 : kChunk * in_.H),
        dx_(is_wide() || p.d_hidden == nullptr ? 0 : count_ * in_.H),
        db_(kChunk) {}

  int64_t rows() const { return count_; }

  void run(const Member& member) {
    begin(member);
    member.barrier->wait();
    int turn = 0;  // of the two halves of dz_
    for (int64_t v = 0; v < in_.V && count_ > 0; v += kChunk) {
      const int64_t words = std::min(kChunk, in_.V - v);
      if (p_.d_hidden != nullptr) pack_weights(v, words, member);
      const int64_t first = std::min(words, member.begin((words + 3) / 4) * 4);
      const int64_t last = std::min(words, member.end((words + 3) / 4) * 4);
      for (int64_t block = 0; block < blocks_; ++block, turn ^= 1) {
        S* const dz = dz_.data() + turn * kBlock * kChunk;
        for (int64_t w = first; w < last; w += Block::kWords) {
          logit_gradients(Block(in_, v + w, std::min(Block::kWords, last - w)), block, dz + w);
        }
        parameter_gradients(v, first, last, block, dz);
        // All words of dz are there. And where nobody reads the others' words: a last, shorter
        // chunk is shared out anew, so that a thread's memory there is another's here.
        member.barrier->wait();
        if (p_.d_hidden != nullptr) hidden_gradients(v, words, block, dz, member);
      }
    }
  }

 private:
  static constexpr bool is_wide() { return std::is_same_v<S, T>; }

  const S* hidden_row(int64_t i) const {
    return static_cast<const S*>(in_.hidden) + rows_[i] * in_.H;
  }
  int64_t rows_of(int64_t block) const { return std::min(kBlock, count_ - block * kBlock); }
  S* x_panel(int64_t block, int64_t panel) const {
    return x_panels_.data() + (block * panels_ + panel) * kBlock * kColumns;
  }
  S* w_panel(int64_t v, int64_t panel) const {
    return w_panels_.data() + (v / kChunk % 2 * panels_ + panel) * kChunk * kColumns;
  }

  // --- before the first chunk ---

  void begin(const Member& member) {
    for (int64_t i = member.begin(count_); i < member.end(count_); ++i) {
      pack_activations<P>(hidden_row(i), 1, in_.H, hidden_.data() + i * stride_);
      set_scales(i);
    }
    for (int64_t k = member.begin(blocks_ * panels_); k < member.end(blocks_ * panels_); ++k) {
      if (p_.d_weight == nullptr) break;
      const int64_t block = k / panels_, column = k % panels_ * kColumns;
      pack_panel_columns<S, NV>([&](int64_t r) { return hidden_row(block * kBlock + r) + column; },
                                rows_of(block), in_.H - column, x_panel(block, k % panels_));
    }
    clear(member);
  }

  // What no product writes: dx of ignored rows; dW and db where every row is ignored.
  void clear(const Member& member) {
    if (p_.d_hidden != nullptr) {
      for (int64_t n = member.begin(in_.N); n < member.end(in_.N); ++n) {
        if (in_.target[n] != in_.ignore_index) continue;
        std::fill_n(static_cast<S*>(p_.d_hidden) + n * in_.H, in_.H, S{});
      }
    }
    if (count_ > 0) return;
    const int64_t v = member.begin(in_.V), words = member.end(in_.V) - v;
    if (p_.d_weight != nullptr) {
      std::fill_n(static_cast<S*>(p_.d_weight) + v * in_.H, words * in_.H, S{});
    }
    if (p_.d_bias != nullptr) std::fill_n(static_cast<S*>(p_.d_bias) + v, words, S{});
  }

  // dz = scale[0] * softmax(z) - scale[1] at the target - scale[2] * class weights
  void set_scales(int64_t i) {
    const bool each = in_.reduction == Reduction::kNone;
    double g = static_cast<double>(static_cast<const T*>(p_.d_loss)[each ? rows_[i] : 0]);
    if (in_.reduction == Reduction::kMean) {
      const double divisor = static_cast<double>(static_cast<const T*>(p_.sums)[0]);
      g = divisor == 0 ? 0.0 : g / divisor;
    }
    const RowWeights weights = weights_.of_row(in_.target[rows_[i]]);
    scales_[3 * i] = static_cast<T>(g * weights.sum);
    scales_[3 * i + 1] = static_cast<T>(g * weights.target);
    scales_[3 * i + 2] = static_cast<T>(g * weights_.per_word());
  }

  void pack_weights(int64_t v, int64_t words, const Member& member) {
    const S* const weight = static_cast<const S*>(in_.weight) + v * in_.H;
    for (int64_t p = member.begin(panels_); p < member.end(panels_); ++p) {
      const int64_t column = p * kColumns;
      pack_panel_columns<S, NV>([&](int64_t k) { return weight + k * in_.H + column; }, words,
                                in_.H - column, w_panel(v, p));
    }
  }

  // --- dz ---

  void logit_gradients(const Block& words, int64_t block, S* dz) {
    const int64_t pass = rows_per_pass<P>(stride_);
    alignas(64) T logits[8 * kTileRows * Block::kStride];
    const S* const weight = static_cast<const S*>(in_.weight) + words.v * in_.H;
    if (words.v < p_.kept) {
      for (int64_t r = 0; r < rows_of(block); ++r) {
        const int64_t i = block * kBlock + r;
        const T* const kept = static_cast<const T*>(p_.logits) + rows_[i] * p_.kept + words.v;
        std::copy_n(kept, words.count, logits);
        gradient_row(words, i, logits, dz + r * kChunk);
      }
      return;
    }
    for (int64_t r = 0; r < rows_of(block); r += pass) {
      const int64_t i = block * kBlock + r, rows = std::min(pass, rows_of(block) - r);
      row_products<P>(weight, in_.H, words.count, in_.H, hidden_.data() + i * stride_, stride_,
                      rows, logits, Block::kStride, block == 0 && r == 0);
      for (int64_t m = 0; m < rows; ++m) {
        T* const row = logits + m * Block::kStride;
        for (int64_t j = 0; j < words.count; j += kLanes) {
          store<T>(row + j, load(row + j) + load(words.bias + j));
        }
        gradient_row(words, i + m, row, dz + (r + m) * kChunk);
      }
    }
  }

  SEQ2SEQ_EXT_INLINE void gradient_row(const Block& words, int64_t i, T* logits, S* dz) {
    const V lse(static_cast<const T*>(p_.lse)[rows_[i]]);
    const V sum(scales_[3 * i]), word(scales_[3 * i + 2]);
    for (int64_t j = 0; j < words.count; j += kLanes) {
      const V smooth = word * load(words.class_weight + j);
      store<T>(logits + j, fma(sum, exp_of_negative(load(logits + j) - lse), -smooth));
    }
    const int64_t own = in_.target[rows_[i]] - words.v;
    if (own >= 0 && own < words.count) logits[own] -= scales_[3 * i + 1];
    for (int64_t j = 0; j < words.count; j += kLanes) {
      store(dz + j, load(logits + j), static_cast<int>(std::min<int64_t>(kLanes, words.count - j)));
    }
  }

  // --- products ---

  // A tile of sums joins `count` values at `sums` (unless `fresh`); where `result` is given, the
  // sums are whole and go there.
  SEQ2SEQ_EXT_INLINE static void add_row(const T* tile, int64_t count, bool fresh, T* sums,
                                         S* result) {
    for (int64_t j = 0; j < count; j += kLanes) {
      const int n = static_cast<int>(std::min<int64_t>(kLanes, count - j));
      V sum = load(tile + j);
      if (!fresh) sum = sum + load(sums + j, n);
      if (result != nullptr)
        store(result + j, sum, n);
      else
        store(sums + j, sum, n);
    }
  }

  // row_at(r) . panel(p), for rows [first, last) and all panels: `use(r, column, sums)` takes them.
  template <class RowAt, class PanelAt, class Use>
  void products(int64_t first, int64_t last, int64_t K, const RowAt& row_at,
                const PanelAt& panel_at, const Use& use) const {
    alignas(64) T tile[kMaxTileRows<NV> * kColumns];
    const S* rows[kMaxTileRows<NV>];
    for (int64_t p = 0; p < panels_; ++p) {
      for (int64_t r = first, done; r < last; r += done) {
        const int64_t wanted = std::min<int64_t>(kMaxTileRows<NV>, last - r);
        for (int64_t m = 0; m < wanted; ++m) rows[m] = row_at(r + m);
        done = panel_product<S, NV>(rows, wanted, K, panel_at(p), nullptr, tile, kColumns);
        for (int64_t m = 0; m < done; ++m) use(r + m, p * kColumns, tile + m * kColumns);
      }
    }
  }

  // dW and db of the thread's words [first, last) of the chunk at v: this block's share.
  void parameter_gradients(int64_t v, int64_t first, int64_t last, int64_t block, const S* dz) {
    if (first == last || (p_.d_weight == nullptr && p_.d_bias == nullptr)) return;
    const bool fresh = block == 0, whole = block == blocks_ - 1;
    const int64_t count = rows_of(block);
    const S* rows[kBlock];
    for (int64_t r = 0; r < count; ++r) rows[r] = dz + r * kChunk;
    transpose_rows(rows, count, first, last, dz_columns_.data() + first * kBlock, kBlock);
    if (p_.d_weight != nullptr) {
      S* const result = static_cast<S*>(p_.d_weight) + v * in_.H;
      products(
          first, last, count, [&](int64_t w) { return dz_columns_.data() + w * kBlock; },
          [&](int64_t p) { return x_panel(block, p); },
          [&](int64_t w, int64_t column, const T* sums) {
            const int64_t at = w * in_.H + column;
            add_row(sums, std::min(kColumns, in_.H - column), fresh, wide(dw_, result) + at,
                    whole ? result + at : nullptr);
          });
    }
    if (p_.d_bias == nullptr) return;
    for (int64_t w = first; w < last; ++w) {
      V sum(T(0));
      for (int64_t r = 0; r < count; r += kLanes) {
        sum = sum + load(dz_columns_.data() + w * kBlock + r,
                         static_cast<int>(std::min<int64_t>(kLanes, count - r)));
      }
      db_[w] = fresh ? reduce_add(sum) : db_[w] + reduce_add(sum);
      if (whole) static_cast<S*>(p_.d_bias)[v + w] = from_acc<S>(db_[w]);
    }
  }

  // dx of the thread's rows of the block: this chunk's share.
  void hidden_gradients(int64_t v, int64_t words, int64_t block, const S* dz,
                        const Member& member) {
    const bool fresh = v == 0, whole = v + kChunk >= in_.V;
    const int64_t first = block * kBlock;
    products(
        member.begin(rows_of(block)), member.end(rows_of(block)), words,
        [&](int64_t r) { return dz + r * kChunk; }, [&](int64_t p) { return w_panel(v, p); },
        [&](int64_t r, int64_t column, const T* sums) {
          S* const result = static_cast<S*>(p_.d_hidden) + rows_[first + r] * in_.H + column;
          T* to;
          if constexpr (is_wide())
            to = result;
          else
            to = dx_.data() + (first + r) * in_.H + column;
          add_row(sums, std::min(kColumns, in_.H - column), fresh, to, whole ? result : nullptr);
        });
  }

  // Where sums are kept until they are whole: in the result itself, or in `sums` if that is wider.
  static T* wide([[maybe_unused]] const ScratchArray<T>& sums, [[maybe_unused]] S* result) {
    if constexpr (is_wide())
      return result;
    else
      return sums.data();
  }

  const CrossEntropyBackwardParams& p_;
  const CrossEntropyInputs& in_;
  const CountedRows rows_;
  const LossWeights<T> weights_;
  const int64_t count_, blocks_, panels_, stride_;
  ScratchArray<typename P::Activation> hidden_;  // (count, stride)
  ScratchArray<T> scales_;                       // (count, 3)
  ScratchArray<S> x_panels_;                     // (blocks, panels, kBlock * kColumns)
  ScratchArray<S> w_panels_;                     // (2, panels, kChunk * kColumns)
  ScratchArray<S> dz_;                           // (2, kBlock, kChunk)
  ScratchArray<S> dz_columns_;                   // (kChunk, kBlock): transposed
  ScratchArray<T> dw_, dx_;                      // (kChunk, H), (count, H)
  ScratchArray<T> db_;                           // (kChunk)
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
