// SPDX-License-Identifier: MIT
// Linear + cross-entropy, forward, for one ISA: one pass over the weights, no logits kept.
//
// The vocabulary is cut into at most kSlices slices, whatever the rows or the threads. A row goes
// through a slice block by block, with a running maximum and sum; the slices' sums are then put
// together in the order of the slices. Threads take (slice, group of rows) pairs.
#pragma once

#include <atomic>

// This comes before what is compiled for the ISA (target.h).
#include "cpu/cross_entropy_rows.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class S>
class CrossEntropyForward {
 public:
  using T = AccOf<S>;
  using V = Vec<T>;
  using P = Product<S>;
  using Block = WordBlock<S>;
  static constexpr int64_t kSlices = 32;
  static constexpr int64_t kGroup = 192;  // rows: divisible by all that rows_per_pass() returns

  explicit CrossEntropyForward(const CrossEntropyForwardParams& p)
      : p_(p),
        in_(p.in),
        rows_(p.in),
        weights_(p.in),
        count_(rows_.count()),
        blocks_((in_.V + Block::kWords - 1) / Block::kWords),
        slices_(std::min(blocks_, kSlices)),
        groups_((count_ + kGroup - 1) / kGroup),
        parts_((slices_ + V::kLanes - 1) / V::kLanes * V::kLanes),
        stride_(padded_length<P>(in_.H)),
        hidden_(count_ * stride_),
        maxima_(count_ * parts_),
        sums_(count_ * parts_),
        weighted_(weights_.smooths() ? count_ * parts_ : 0),
        target_logit_(count_),
        losses_(count_) {}

  int64_t tasks() const { return slices_ * groups_; }
  int64_t rows() const { return count_; }

  void run(const Member& member) {
    for (int64_t i = member.begin(count_); i < member.end(count_); ++i) begin_row(i);
    clear_logits(member);
    member.barrier->wait();
    // Neighbouring tasks share a slice of the weights.
    for (int64_t task; (task = next_task_.fetch_add(1, std::memory_order_relaxed)) < tasks();) {
      run_slice(task / groups_, task % groups_ * kGroup);
    }
    member.barrier->wait();
    for (int64_t i = member.begin(count_); i < member.end(count_); ++i) finish_row(i);
    member.barrier->wait();
    if (member.index == 0) reduce();
  }

 private:
  // The kept logits of rows to ignore.
  void clear_logits(const Member& member) {
    if (p_.kept == 0) return;
    for (int64_t n = member.begin(in_.N); n < member.end(in_.N); ++n) {
      if (in_.target[n] == in_.ignore_index) std::fill_n(logits_row(n), p_.kept, T(0));
    }
  }
  T* logits_row(int64_t n) const { return static_cast<T*>(p_.logits) + n * p_.kept; }

  void begin_row(int64_t i) {
    pack_activations<P>(static_cast<const S*>(in_.hidden) + rows_[i] * in_.H, 1, in_.H,
                        hidden_.data() + i * stride_);
    std::fill_n(maxima_.data() + i * parts_, parts_, -std::numeric_limits<T>::infinity());
    std::fill_n(sums_.data() + i * parts_, parts_, T(0));
    if (weights_.smooths()) std::fill_n(weighted_.data() + i * parts_, parts_, T(0));
    target_logit_[i] = std::numeric_limits<T>::quiet_NaN();  // for a target out of range
  }

  void run_slice(int64_t slice, int64_t first) {
    const int64_t last = std::min(first + kGroup, count_);
    const int64_t pass = rows_per_pass<P>(stride_);
    alignas(64) T logits[8 * kTileRows * Block::kStride];
    const int64_t end = blocks_ * (slice + 1) / slices_;
    for (int64_t b = blocks_ * slice / slices_; b < end; ++b) {
      const int64_t v = b * Block::kWords;
      const Block block(in_, v, std::min(Block::kWords, in_.V - v));
      const S* const weight = static_cast<const S*>(in_.weight) + v * in_.H;
      for (int64_t i = first; i < last; i += pass) {
        const int64_t rows = std::min(pass, last - i);
        row_products<P>(weight, in_.H, block.count, in_.H, hidden_.data() + i * stride_, stride_,
                        rows, logits, Block::kStride, i == 0);
        for (int64_t r = 0; r < rows; ++r)
          add_block(i + r, slice, block, logits + r * Block::kStride);
      }
    }
  }

  // The logits of a block join a row's running sums over the slice.
  SEQ2SEQ_EXT_INLINE void add_block(int64_t i, int64_t slice, const Block& block, T* logits) {
    constexpr int kLanes = V::kLanes;
    constexpr T kLowest = -std::numeric_limits<T>::infinity();
    for (int64_t j = block.count; j < Block::kWords; ++j) logits[j] = T(0);
    V weighted(T(0));
    for (int64_t j = 0; j < Block::kWords; j += kLanes) {
      const V z = load(logits + j) + load(block.bias + j);
      weighted = fma(z, load(block.class_weight + j), weighted);
      store<T>(logits + j, z);
    }
    if (block.v < p_.kept) std::copy_n(logits, block.count, logits_row(rows_[i]) + block.v);
    for (int64_t j = block.count; j < Block::kWords; ++j) logits[j] = kLowest;
    const int64_t own = in_.target[rows_[i]] - block.v;
    if (own >= 0 && own < block.count) target_logit_[i] = logits[own];

    const int64_t part = i * parts_ + slice;
    if (weights_.smooths()) weighted_[part] += reduce_add(weighted);
    const T before = maxima_[part], found = max_of(logits, Block::kWords);
    const T top = found > before ? found : before;  // a NaN does not get in here, but into the sum
    const V shift(top == kLowest ? T(0) : top);
    V sum(T(0));
    for (int64_t j = 0; j < Block::kWords; j += kLanes) {
      sum = sum + exp_of_negative(load(logits + j) - shift);
    }
    T rescaled = sums_[part];
    if (top != before) rescaled *= exp_of_negative(V(before) - shift).v[0];
    sums_[part] = rescaled + reduce_add(sum);
    maxima_[part] = top;
  }

  void finish_row(int64_t i) {
    const int64_t n = rows_[i];
    const SoftmaxPart<T> all =
        merge_parts(maxima_.data() + i * parts_, sums_.data() + i * parts_, parts_);
    // Not so with a NaN, a +inf, or nothing but -inf.
    const double lse = all.sum > T(0)
                           ? static_cast<double>(all.max) + std::log(static_cast<double>(all.sum))
                           : std::numeric_limits<double>::quiet_NaN();
    static_cast<T*>(p_.lse)[n] = static_cast<T>(lse);
    losses_[i] =
        weights_.of_row(in_.target[n]).target * (lse - static_cast<double>(target_logit_[i]));
    if (weights_.smooths()) {
      double weighted = 0;
      for (int64_t s = 0; s < slices_; ++s)
        weighted += static_cast<double>(weighted_[i * parts_ + s]);
      losses_[i] += weights_.per_word() * (weights_.total() * lse - weighted);
    }
  }

  void reduce() {
    T* const loss = static_cast<T*>(p_.loss);
    T* const lse = static_cast<T*>(p_.lse);
    ChainedSum losses, weights;
    int64_t i = 0;
    for (int64_t n = 0; n < in_.N; ++n) {
      const bool counts = i < count_ && rows_[i] == n;
      if (in_.reduction == Reduction::kNone) loss[n] = counts ? static_cast<T>(losses_[i]) : T(0);
      if (!counts) {
        lse[n] = T(0);
        continue;
      }
      losses.add(losses_[i++]);
      weights.add(weights_.of_class(in_.target[n]));
    }
    const double sum = losses.value(), divisor = weights.value();
    if (in_.reduction == Reduction::kSum) loss[0] = static_cast<T>(sum);
    if (in_.reduction == Reduction::kMean) {
      loss[0] = divisor == 0 ? T(0) : static_cast<T>(sum / divisor);
    }
    static_cast<T*>(p_.sums)[0] = static_cast<T>(divisor);
    static_cast<T*>(p_.sums)[1] = static_cast<T>(weights_.total());
  }

  const CrossEntropyForwardParams& p_;
  const CrossEntropyInputs& in_;
  const CountedRows rows_;
  const LossWeights<T> weights_;
  const int64_t count_, blocks_, slices_, groups_, parts_, stride_;
  ScratchArray<typename P::Activation> hidden_;  // (count, stride)
  ScratchArray<T> maxima_, sums_, weighted_;     // (count, parts): of each slice
  ScratchArray<T> target_logit_;                 // (count)
  ScratchArray<double> losses_;                  // (count)
  std::atomic<int64_t> next_task_{0};
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
