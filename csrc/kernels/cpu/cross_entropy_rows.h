// SPDX-License-Identifier: MIT
// Linear + cross-entropy for one ISA: what its forward and backward share. Rows to ignore (the
// padding of a batch) are left out from the start, so they cost nothing.
#pragma once

#include "cpu/row_products.h"
#include "cpu/softmax.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// The rows whose target is not ignored, in order, and where they come from.
class CountedRows {
 public:
  explicit CountedRows(const CrossEntropyInputs& in) : index_(std::max<int64_t>(in.N, 1)) {
    for (int64_t n = 0; n < in.N; ++n) {
      if (in.target[n] != in.ignore_index) index_[count_++] = n;
    }
  }
  int64_t count() const { return count_; }
  int64_t operator[](int64_t i) const { return index_[i]; }

 private:
  ScratchArray<int64_t> index_;
  int64_t count_ = 0;
};

// A sum made of the sums of every 64 terms: short chains round less.
class ChainedSum {
 public:
  void add(double x) {
    chain_ += x;
    if (++terms_ % 64 != 0) return;
    total_ += chain_;
    chain_ = 0;
  }
  double value() const { return total_ + chain_; }

 private:
  double total_ = 0, chain_ = 0;
  int64_t terms_ = 0;
};

struct RowWeights {
  double target;  // of -log p(target): (1 - e) c[target]
  double sum;     // of the row's lse: the above, and what smoothing adds over all words
};

// The factors that class weights and label smoothing bring.
template <class T>
class LossWeights {
 public:
  explicit LossWeights(const CrossEntropyInputs& in)
      : in_(in), class_weight_(static_cast<const T*>(in.class_weight)) {
    ChainedSum sum;
    if (class_weight_ != nullptr) {
      for (int64_t v = 0; v < in.V; ++v) sum.add(static_cast<double>(class_weight_[v]));
    }
    total_ = class_weight_ == nullptr ? static_cast<double>(in.V) : sum.value();
  }

  bool smooths() const { return in_.label_smoothing > 0; }
  double total() const { return total_; }  // of all classes
  // What every word's logit counts with, times its class weight.
  double per_word() const { return in_.label_smoothing / static_cast<double>(in_.V); }

  // NaN where there is no such class: everything of such a row becomes NaN.
  double of_class(int64_t target) const {
    if (target < 0 || target >= in_.V) return std::numeric_limits<double>::quiet_NaN();
    return class_weight_ == nullptr ? 1.0 : static_cast<double>(class_weight_[target]);
  }

  RowWeights of_row(int64_t target) const {
    const double own = (1 - in_.label_smoothing) * of_class(target);
    return {own, smooths() ? own + per_word() * total_ : own};
  }

 private:
  const CrossEntropyInputs& in_;
  const T* const class_weight_;
  double total_;
};

// Words [v, v + count) as a row sees them besides its product: bias, and class weights, each padded
// to whole vectors with what adds nothing.
template <class S>
struct WordBlock {
  using T = AccOf<S>;
  static constexpr int64_t kWords = 96;
  // Rows of a block's logits start on cache lines and have room for the tiles' overhang.
  static constexpr int64_t kStride = kWords + 16;

  int64_t v, count;
  alignas(64) T bias[kWords];
  alignas(64) T class_weight[kWords];

  WordBlock(const CrossEntropyInputs& in, int64_t first, int64_t words) : v(first), count(words) {
    for (int64_t i = 0; i < kWords; ++i) {
      bias[i] = T(0);
      class_weight[i] = i < count ? T(1) : T(0);
    }
    if (in.bias != nullptr) {
      const S* source = static_cast<const S*>(in.bias) + v;
      for (int64_t i = 0; i < count; ++i) bias[i] = to_acc(source[i]);
    }
    if (in.class_weight != nullptr) {
      std::copy_n(static_cast<const T*>(in.class_weight) + v, count, class_weight);
    }
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
