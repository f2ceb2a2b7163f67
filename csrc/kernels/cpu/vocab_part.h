// SPDX-License-Identifier: MIT
// The vocabulary's part of a decode step for one ISA: logits, the model's log-probabilities, bans
// and penalties, and the candidates that are left. Included by vocab_<isa>.cpp only.
//
// Blocks, products and sums are those of vocab.h, so log-probabilities have the bits that
// vocab_pick gives them. They come from the plain logits; what constraints do to a row's logits
// concerns the choice alone.
#pragma once

#include <memory>

#include "cpu/decode/nucleus.h"
#include "cpu/decode/parts.h"
// These come before what is compiled for the ISA (target.h).
#include "cpu/vocab.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

using decode::RowConstraints;
using decode::VocabTask;

template <class S>
class VocabPart final : public decode::VocabPart {
 public:
  using T = AccOf<S>;
  static constexpr int kLanes = Vec<T>::kLanes;

  VocabPart(const decode::VocabPartParams& most, int threads)
      : decode::VocabPart(most),
        threads_(threads),
        blocks_((most.V + kBlock - 1) / kBlock),
        parts_((blocks_ + kLanes - 1) / kLanes * kLanes),
        kept_(most.task == VocabTask::kBest ? most.K : 1),
        product_(most.B, most.H, most.in_panels, most.lists != nullptr, threads),
        maxima_(most.B * parts_),
        sums_(most.B * parts_),
        forced_(most.B),
        logits_(most.task == VocabTask::kNucleus ? most.B * blocks_ * kBlock : 0),
        drawn_(most.task == VocabTask::kDraw ? threads * most.B : 0),
        work_(int64_t{threads} * threads * kept_),
        values_(most.B * kept_),
        indices_(most.B * kept_),
        tokens_(most.B * kept_),
        scores_(most.B * kept_),
        log_probs_(most.B * kept_),
        all_(most.all ? most.B * blocks_ * kBlock : 0),
        gathered_(most.lists != nullptr ? threads * product_.block_size() : 0),
        inverse_temperature_(static_cast<T>(1 / most.temperature)) {
    for (int64_t b = 0; b < most.B; ++b) fill_parts(b, blocks_);
    log_probs = all_.data();
    log_probs_stride = blocks_ * kBlock;
    if (most.lists != nullptr) own_blocks_.reserve(most.B * blocks_);
    for (int i = 0; most.task == VocabTask::kBest && i < threads; ++i) {
      owned_.push_back(std::make_unique<TopK<T>>(most.B, most.K));
      best_.push_back(owned_.back().get());
    }
    if (most.task == VocabTask::kNucleus) nuclei_.resize(most.B);
    for (decode::Nucleus& nucleus : nuclei_) nucleus.reserve(most.V);
  }

  void run(const Member& member) override {
    const int64_t begin = member.begin(params.B), end = member.end(params.B);
    const bool own = owns(params.B);
    if (own) {
      product_.pack_own(params.features, member.index);
    } else {
      product_.pack(params.features, begin, end, params.B);
    }
    if (member.index == 0 && params.lists != nullptr) find_own_blocks();
    if (params.task == VocabTask::kBest) best_[member.index]->reset(params.B);
    if (params.task == VocabTask::kDraw) {
      std::fill_n(drawn_.data() + member.index * params.B, params.B, Drawn<T>());
    }
    if (!own) member.barrier->wait();
    if (params.lists == nullptr) {
      queue_.share_out(blocks_, member, [&](int64_t j) { block(j, member); });
    } else {
      queue_.share_out(static_cast<int64_t>(own_blocks_.size()), member,
                       [&](int64_t j) { own_block(own_blocks_[j], member); });
    }
    member.barrier->wait();
    if (member.index == 0) queue_.reset();  // for the next run: nobody looks at it before that
    for (int64_t b = begin; b < end; ++b) finish_row(b, member);
  }

 private:
  // Whether every member packs the rows, a single one, for itself.
  bool owns(int64_t rows) const { return rows == 1 && product_.packs_for_itself(); }

  const RowConstraints* constraints(int64_t b) const {
    return params.constraints == nullptr ? nullptr : params.constraints[b];
  }

  // A block of a list that rows [first, end) share.
  struct OwnBlock {
    int64_t first, end, index;
  };

  int64_t words(int64_t b) const {
    return params.lists == nullptr ? params.V : params.lists[b].count;
  }
  const int64_t* tokens(int64_t b) const {
    return params.lists == nullptr ? params.tokens : params.lists[b].tokens;
  }

  // A row's parts behind its `blocks`: of no weight in the sum.
  void fill_parts(int64_t b, int64_t blocks) {
    for (int64_t j = blocks; j < parts_; ++j) {
      maxima_[b * parts_ + j] = -std::numeric_limits<T>::infinity();
      sums_[b * parts_ + j] = T(0);
    }
  }

  void find_own_blocks() {
    own_blocks_.clear();
    for (int64_t first = 0, end; first < params.B; first = end) {
      const decode::WordList& list = params.lists[first];
      const int64_t blocks = (list.count + kBlock - 1) / kBlock;
      for (end = first; end < params.B && params.lists[end].tokens == list.tokens; ++end) {
        fill_parts(end, blocks);
      }
      for (int64_t j = 0; j < blocks; ++j) own_blocks_.push_back({first, end, j});
    }
  }

  void block(int64_t index, const Member& member) {
    const int64_t v = index * kBlock, count = std::min(kBlock, params.V - v);
    T bias[kBlock] = {};
    if (params.bias != nullptr) {
      const S* source = static_cast<const S*>(params.bias) + v;
      for (int64_t i = 0; i < count; ++i) bias[i] = to_acc(source[i]);
    }
    rows(product_.weights(params.weight, params.panels, index), bias, count, {0, params.B, index},
         member);
  }

  // The list's rows of the weights are brought together, as torch would do it.
  void own_block(const OwnBlock& own, const Member& member) {
    const decode::WordList& list = params.lists[own.first];
    const int64_t* token = list.tokens + own.index * kBlock;
    const int64_t count = std::min(kBlock, list.count - own.index * kBlock);
    S* const gathered = gathered_.data() + member.index * product_.block_size();
    product_.gather(params.weight, token, count, gathered);
    T bias[kBlock] = {};
    for (int64_t i = 0; params.bias != nullptr && i < count; ++i) {
      bias[i] = to_acc(static_cast<const S*>(params.bias)[token[i]]);
    }
    rows(gathered, bias, count, own, member);
  }

  void rows(const S* weights, const T* bias, int64_t count, const OwnBlock& block,
            const Member& member) {
    const int64_t pass = product_.pass();
    const int owner = owns(params.B) ? member.index : -1;
    alignas(64) T logits[VocabProduct<S>::kMostRows * kBlockStride];
    for (int64_t b = block.first; b < block.end; b += pass) {
      const int64_t rows = std::min(pass, block.end - b);
      product_.block(weights, count, b, rows, block.first, block.end, owner, logits);
      for (int64_t i = 0; i < rows; ++i) {
        row(b + i, block.index, logits + i * kBlockStride, bias, count, member);
      }
    }
  }

  SEQ2SEQ_EXT_INLINE void row(int64_t b, int64_t block, T* logits, const T* bias, int64_t count,
                              const Member& member) {
    for (int64_t i = count; i < kBlock; ++i) logits[i] = -std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < kBlock; i += kLanes) {
      store<T>(logits + i, load(logits + i) + load(bias + i));
    }
    SoftmaxPart<T> part = softmax_part(logits, kBlock);
    maxima_[b * parts_ + block] = part.max;
    sums_[b * parts_ + block] = part.sum;
    if (params.all) std::copy_n(logits, kBlock, all_.data() + (b * blocks_ + block) * kBlock);
    if (const RowConstraints* c = constraints(b)) {
      if (c->forced >= 0) {
        if (c->forced / kBlock == block) forced_[b] = logits[c->forced % kBlock];
        return;
      }
      constrain(*c, words(b), block, logits);
      part.max = max_of(logits, kBlock);
    }
    switch (params.task) {
      case VocabTask::kBest:
        return offer(*best_[member.index], b, block * kBlock, logits, count, part.max);
      case VocabTask::kDraw:
        return draw(b, block * kBlock, logits, count, part.max, member);
      case VocabTask::kNucleus:
        std::copy_n(logits, kBlock, logits_.data() + (b * blocks_ + block) * kBlock);
        return;
      case VocabTask::kForced:
        return;
    }
  }

  // Bans, and the penalty on logits of words that the row has seen.
  __attribute__((noinline)) void constrain(const RowConstraints& c, int64_t size, int64_t block,
                                           T* logits) const {
    const int64_t first = block * kBlock, last = first + kBlock;
    const auto from = [first](const std::vector<int64_t>& words) {
      return std::lower_bound(words.begin(), words.end(), first) - words.begin();
    };
    const int64_t seen = static_cast<int64_t>(c.seen.size());
    for (int64_t i = from(c.seen); i < seen && c.seen[i] < last; ++i) {
      T& logit = logits[c.seen[i] - first];
      const_cast<RowConstraints&>(c).seen_logits[i] = logit;  // one thread has this block
      logit = static_cast<T>(decode::penalize(logit, params.repetition_penalty));
    }
    if (c.banned != nullptr) {
      const int64_t words = (size + 31) / 32, word = block * (kBlock / 32);
      for (int64_t j = 0; j < std::min<int64_t>(kBlock / 32, words - word); ++j) {
        for (uint32_t rest = c.banned[word + j]; rest != 0; rest &= rest - 1) {
          logits[32 * j + __builtin_ctz(rest)] = -std::numeric_limits<T>::infinity();
        }
      }
    }
    const int64_t more = static_cast<int64_t>(c.also_banned.size());
    for (int64_t i = from(c.also_banned); i < more && c.also_banned[i] < last; ++i) {
      logits[c.also_banned[i] - first] = -std::numeric_limits<T>::infinity();
    }
  }

  static SEQ2SEQ_EXT_INLINE void offer(TopK<T>& best, int64_t b, int64_t v, const T* logits,
                                       int64_t count, T top) {
    if (!best.wants(b, top)) return;
    each_not_below(best.least(b), logits, kBlock, [&](int64_t i) {
      if (i < count && best.wants(b, logits[i])) best.offer(b, logits[i], v + i);
    });
  }

  void draw(int64_t b, int64_t v, const T* logits, int64_t count, T top, const Member& member) {
    Drawn<T>& best = drawn_[member.index * params.B + b];
    const int64_t before = best.index;
    if (params.temperature == 1) {
      draw_block(params.keys[b], logits, v, count, top, best);
    } else {
      alignas(64) T scaled[kBlock];
      const Vec<T> factor(inverse_temperature_);
      for (int64_t i = 0; i < kBlock; i += kLanes) {
        store<T>(scaled + i, load(logits + i) * factor);
      }
      draw_block(params.keys[b], scaled, v, count, top * inverse_temperature_, best);
    }
    if (best.index != before) best.logit = logits[best.index - v];
  }

  void finish_row(int64_t b, const Member& member) {
    decode::Candidates& out = candidates[b] = {};
    SoftmaxPart<T> all =
        merge_parts(maxima_.data() + b * parts_, sums_.data() + b * parts_, parts_);
    out.finite = all.sum > T(0);  // else: a NaN, a +inf, or nothing but -inf
    double log_sum = std::log(static_cast<double>(all.sum));
    if (params.normalizers != nullptr) {
      all.max = static_cast<T>(params.normalizers[b].max);
      log_sum = params.normalizers[b].log_sum;
      out.finite = out.finite && !std::isnan(log_sum);
    }
    if (params.all) to_log_probs(b, all.max, out.finite ? log_sum : std::nan(""));
    if (params.all) partitions[b] = all.max + log_sum;
    if (!out.finite) return;
    const RowConstraints* c = constraints(b);
    if (c != nullptr && c->forced >= 0) {
      values_[b * kept_] = forced_[b];
      indices_[b * kept_] = c->forced;
      out.count = 1;
    } else if (params.task == VocabTask::kNucleus) {
      decode::Nucleus& nucleus = nuclei_[b];
      nucleus.list(logits_.data() + b * blocks_ * kBlock, words(b), tokens(b), params, c, all.max,
                   log_sum, &out);
      return;
    } else if (params.task == VocabTask::kDraw) {
      const Drawn<T> best = drawn(b, member);
      values_[b * kept_] = best.logit;
      indices_[b * kept_] = best.index;
      out.drawn = true;
      out.count = best.key > -std::numeric_limits<T>::infinity();
    } else if (params.task == VocabTask::kBest) {
      out.count = TopK<T>::merge(best_.data(), member.size, b,
                                 work_.data() + int64_t{member.index} * threads_ * kept_,
                                 values_.data() + b * kept_, indices_.data() + b * kept_);
    }
    fill(b, all.max, log_sum, c, &out);
  }

  void to_log_probs(int64_t b, T max, double log_sum) {
    T* const row = all_.data() + b * blocks_ * kBlock;
    for (int64_t v = 0; v < words(b); ++v) {
      row[v] = static_cast<T>((static_cast<double>(row[v]) - max) - log_sum);
    }
  }

  // From logits and words to what a strategy takes.
  void fill(int64_t b, T max, double log_sum, const RowConstraints* c, decode::Candidates* out) {
    const int64_t at = b * kept_;
    const int64_t* const named = tokens(b);
    int64_t count = 0;
    for (; count < out->count; ++count) {
      const T value = values_[at + count];
      const int64_t word = indices_[at + count];
      if (value == -std::numeric_limits<T>::infinity() && params.task != VocabTask::kForced) break;
      const decode::Scored scored =
          decode::scored<T>(word, value, max, log_sum, c, params.repetition_penalty);
      tokens_[at + count] = named == nullptr ? word : named[word];
      scores_[at + count] = scored.score;
      log_probs_[at + count] = scored.log_prob;
    }
    out->count = count;
    out->tokens = tokens_.data() + at;
    out->scores = scores_.data() + at;
    out->log_probs = log_probs_.data() + at;
  }

  Drawn<T> drawn(int64_t b, const Member& member) const {
    Drawn<T> best = drawn_[b];
    for (int i = 1; i < member.size; ++i) {
      const Drawn<T>& other = drawn_[i * params.B + b];
      if (other.beats(best)) best = other;
    }
    return best;
  }

  const int threads_;
  const int64_t blocks_, parts_, kept_;
  const VocabProduct<S> product_;
  ScratchArray<T> maxima_, sums_;    // (B, parts): softmax_part of each block
  ScratchArray<T> forced_;           // (B)
  ScratchArray<T> logits_;           // (B, blocks * kBlock), kNucleus
  ScratchArray<Drawn<T>> drawn_;     // (threads, B), kDraw
  ScratchArray<Candidate<T>> work_;  // (threads, threads, kept): for merging
  ScratchArray<T> values_;           // (B, kept), and so below
  ScratchArray<int64_t> indices_, tokens_;
  ScratchArray<double> scores_, log_probs_;
  ScratchArray<T> all_;       // (B, blocks * kBlock), with params.all
  ScratchArray<S> gathered_;  // (threads, kBlock, H), with lists
  std::vector<OwnBlock> own_blocks_;
  const T inverse_temperature_;
  std::vector<std::unique_ptr<TopK<T>>> owned_;
  std::vector<TopK<T>*> best_;  // one a thread
  std::vector<decode::Nucleus> nuclei_;
  BlockQueue queue_;
};

}  // namespace

decode::VocabPart* make_vocab_part(const decode::VocabPartParams& most, int threads) {
  switch (most.dtype) {
    case DType::kFloat32:
      return new VocabPart<float>(most, threads);
    case DType::kFloat64:
      return new VocabPart<double>(most, threads);
    case DType::kBFloat16:
      return new VocabPart<BFloat16>(most, threads);
    default:
      return nullptr;
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
