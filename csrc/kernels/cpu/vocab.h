// SPDX-License-Identifier: MIT
// Vocabulary pick for one ISA: projection, log-softmax and top-K in one pass over the weights.
// Included by vocab_<isa>.cpp only.
//
// The vocabulary is cut into blocks of kBlock words, whatever the batch or the threads: threads
// take blocks, a block's logits for a few rows at a time live in the first-level cache, and leave
// behind their maximum, the sum of their exponentials, and what top-K (or the draw) wants of them.
// The blocks' sums are then added in the order of the blocks.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "common/philox.h"
#include "cpu/top_k.h"
// These come before what is compiled for the ISA (target.h).
#include "cpu/draw.h"
#include "cpu/softmax.h"
#include "cpu/vocab_product.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

static_assert(kBlock % kDrawBlock == 0 && kDrawBlock == 32, "bans and draws go by 32 words");

// The vocabulary's blocks, handed out in ascending order: a thread that was held up takes fewer.
// Many at a time at first, for they lie side by side, and one by one in the end, so that all are
// done at once.
class BlockQueue {
 public:
  void reset() { next_.store(0, std::memory_order_relaxed); }

  template <class Body>
  void share_out(int64_t blocks, const Member& member, const Body& body) {
    int64_t begin = next_.load(std::memory_order_relaxed);
    while (begin < blocks) {
      const int64_t share = std::max<int64_t>(1, (blocks - begin) / (3 * member.size));
      if (!next_.compare_exchange_weak(begin, begin + share, std::memory_order_relaxed)) continue;
      for (int64_t j = begin; j < begin + share; ++j) body(j);
      begin = next_.load(std::memory_order_relaxed);
    }
  }

 private:
  std::atomic<int64_t> next_{0};
};

// A group of rows that shares one pass over all weights.
template <class S>
class VocabPick {
 public:
  using T = AccOf<S>;

  VocabPick(const VocabPickParams& p, int64_t first, int64_t rows, int threads)
      : p_(p),
        first_(first),
        rows_(rows),
        blocks_((p.V + kBlock - 1) / kBlock),
        parts_((blocks_ + Vec<T>::kLanes - 1) / Vec<T>::kLanes * Vec<T>::kLanes),
        product_(rows, p.H, p.panels != nullptr),
        maxima_(rows * parts_),
        sums_(rows * parts_),
        candidates_(p.seed == nullptr ? int64_t{threads} * threads * p.K : 0),
        drawn_(p.seed == nullptr ? 0 : int64_t{threads} * rows),
        inverse_temperature_(static_cast<T>(1 / p.temperature)),
        adjusted_(p.temperature != 1 || p.banned != nullptr) {
    product_.pack(static_cast<const S*>(p.hidden) + first * p.H, 0, rows, rows);
    for (int64_t b = 0; b < rows; ++b) {
      for (int64_t j = blocks_; j < parts_; ++j) {
        maxima_[b * parts_ + j] = -std::numeric_limits<T>::infinity();
        sums_[b * parts_ + j] = T(0);
      }
    }
    if (p.seed != nullptr) {
      std::fill_n(drawn_.data(), threads * rows, Drawn<T>());
      return;
    }
    for (int i = 0; i < threads; ++i) {
      owned_.push_back(std::make_unique<TopK<T>>(rows, p.K));
      best_.push_back(owned_.back().get());
    }
  }

  void run(const Member& member) {
    queue_.share_out(blocks_, member, [&](int64_t j) { pick_block(j, member); });
    member.barrier->wait();
    for (int64_t b = member.begin(rows_); b < member.end(rows_); ++b) finish_row(b, member);
  }

 private:
  void pick_block(int64_t block, const Member& member) {
    const int64_t v = block * kBlock, count = std::min(kBlock, p_.V - v);
    T bias[kBlock] = {};
    if (p_.bias != nullptr) {
      const S* source = static_cast<const S*>(p_.bias) + v;
      for (int64_t i = 0; i < count; ++i) bias[i] = to_acc(source[i]);
    }
    const S* weights = product_.weights(p_.weight, p_.panels, block);
    const int64_t pass = product_.pass();
    alignas(64) T logits[VocabProduct<S>::kMostRows * kBlockStride];
    for (int64_t b = 0; b < rows_; b += pass) {
      const int64_t rows = std::min(pass, rows_ - b);
      product_.block(weights, count, b, rows, 0, rows_, -1, logits);
      for (int64_t i = 0; i < rows; ++i) {
        pick_row(b + i, block, logits + i * kBlockStride, bias, count, member);
      }
    }
  }

  SEQ2SEQ_EXT_INLINE void pick_row(int64_t b, int64_t block, T* logits, const T* bias,
                                   int64_t count, const Member& member) {
    for (int64_t i = count; i < kBlock; ++i) logits[i] = -std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < kBlock; i += Vec<T>::kLanes) {
      store<T>(logits + i, load(logits + i) + load(bias + i));
    }
    if (adjusted_) adjust(b, block, logits);
    const SoftmaxPart<T> part = softmax_part(logits, kBlock);
    maxima_[b * parts_ + block] = part.max;
    sums_[b * parts_ + block] = part.sum;
    const int64_t v = block * kBlock;
    if (p_.seed != nullptr) {
      draw_block(draw_key(b), logits, v, count, part.max, drawn_[member.index * rows_ + b]);
      return;
    }
    TopK<T>& best = *best_[member.index];
    if (!best.wants(b, part.max)) return;
    if (p_.K == 1) {
      int64_t i = 0;
      while (i < count - 1 && logits[i] != part.max) ++i;
      best.offer(b, part.max, v + i);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        if (best.wants(b, logits[i])) best.offer(b, logits[i], v + i);
      }
    }
  }

  // Temperature and bans.
  __attribute__((noinline)) void adjust(int64_t b, int64_t block, T* logits) const {
    const Vec<T> factor(inverse_temperature_);
    for (int64_t i = 0; i < kBlock; i += Vec<T>::kLanes) {
      store<T>(logits + i, load(logits + i) * factor);
    }
    if (p_.banned == nullptr) return;
    const int64_t words = (p_.V + 31) / 32, first = block * (kBlock / 32);
    const int32_t* banned = p_.banned + (first_ + b) * words + first;
    for (int64_t j = 0; j < std::min<int64_t>(kBlock / 32, words - first); ++j) {
      for (uint32_t rest = static_cast<uint32_t>(banned[j]); rest != 0; rest &= rest - 1) {
        logits[32 * j + __builtin_ctz(rest)] = -std::numeric_limits<T>::infinity();
      }
    }
  }

  DrawKey draw_key(int64_t b) const {
    const int64_t row = p_.rows != nullptr ? p_.rows[first_ + b] : first_ + b;
    return {static_cast<uint64_t>(*p_.seed), static_cast<uint32_t>(*p_.step),
            static_cast<uint64_t>(row)};
  }

  // The best of what the members drew.
  Drawn<T> drawn(int64_t b, const Member& member) const {
    Drawn<T> best = drawn_[b];
    for (int i = 1; i < member.size; ++i) {
      const Drawn<T>& other = drawn_[i * rows_ + b];
      if (other.beats(best)) best = other;
    }
    return best;
  }

  void finish_row(int64_t b, const Member& member) {
    T* log_probs = static_cast<T*>(p_.log_probs) + (first_ + b) * p_.K;
    int64_t* indices = p_.indices + (first_ + b) * p_.K;
    const SoftmaxPart<T> all =
        merge_parts(maxima_.data() + b * parts_, sums_.data() + b * parts_, parts_);
    if (!(all.sum > T(0))) {  // a NaN, a +inf, or nothing but -inf
      for (int64_t k = 0; k < p_.K; ++k) {
        log_probs[k] = std::numeric_limits<T>::quiet_NaN();
        indices[k] = k;
      }
      return;
    }
    if (p_.seed != nullptr) {
      const Drawn<T> best = drawn(b, member);
      log_probs[0] = best.logit;
      indices[0] = best.index;
    } else {
      Candidate<T>* const work = candidates_.data() + int64_t{member.index} * member.size * p_.K;
      TopK<T>::merge(best_.data(), member.size, b, work, log_probs, indices);
    }
    const double log_sum = std::log(static_cast<double>(all.sum));
    for (int64_t k = 0; k < p_.K; ++k) {
      log_probs[k] = static_cast<T>((static_cast<double>(log_probs[k]) - all.max) - log_sum);
    }
  }

  const VocabPickParams& p_;
  const int64_t first_, rows_, blocks_, parts_;
  const VocabProduct<S> product_;
  ScratchArray<T> maxima_, sums_;          // (rows, parts): softmax_part of each block
  ScratchArray<Candidate<T>> candidates_;  // (threads, threads, K): for merging
  ScratchArray<Drawn<T>> drawn_;           // (threads, rows), with a seed
  const T inverse_temperature_;
  const bool adjusted_;
  std::vector<std::unique_ptr<TopK<T>>> owned_;
  std::vector<TopK<T>*> best_;  // one a thread
  BlockQueue queue_;
};

template <class S>
Status vocab_pick_as(const VocabPickParams& p, const Runtime& runtime) {
  constexpr int64_t kMinWorkPerThread = 128 << 10;  // multiply-adds, about 5 us
  const int64_t blocks = (p.V + kBlock - 1) / kBlock;
  // Bounds the work memory; weights are streamed once for each group of rows.
  const int64_t group = std::clamp<int64_t>((int64_t{4} << 20) / p.K, 1, 512);
  for (int64_t first = 0; first < p.B; first += group) {
    const int64_t rows = std::min(group, p.B - first);
    const int64_t useful = std::min(blocks, rows * p.V * p.H / kMinWorkPerThread);
    const int threads = static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
    VocabPick<S> pick(p, first, rows, threads);
    run_team(runtime, threads, [&](const Member& member) { pick.run(member); });
  }
  return Status::ok();
}

}  // namespace

Status vocab_pick(const VocabPickParams& p, const Runtime& runtime) {
  if (p.plain || p.rows_a_ban != 1) {
    return Status::invalid("vocab_pick: `plain` and `rows_a_ban` are for CUDA");
  }
  if (p.K < 1 || p.K > p.V) {
    return Status::invalid("vocab_pick: expected 1 <= K <= V = " + std::to_string(p.V) +
                           ", got K = " + std::to_string(p.K));
  }
  if (p.seed != nullptr && p.K != 1) {
    return Status::invalid("vocab_pick: expected K = 1 with a seed, got K = " +
                           std::to_string(p.K));
  }
  switch (p.dtype) {
    case DType::kFloat32:
      return vocab_pick_as<float>(p, runtime);
    case DType::kFloat64:
      return vocab_pick_as<double>(p, runtime);
    case DType::kBFloat16:
      return vocab_pick_as<BFloat16>(p, runtime);
    default:
      return Status::invalid("vocab_pick: expected float32, float64 or bfloat16");
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
