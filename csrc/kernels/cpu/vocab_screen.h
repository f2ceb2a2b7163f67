// SPDX-License-Identifier: MIT
// The K best words by way of an int8 copy of the weights, for one ISA: a quarter of float32's
// bytes. Included by vocab_<isa>.cpp only.
//
// With w = s q + r (q: int8) and x = t p + d (p: int8), |w x - s t q p| <= |r| |x| + s |q| |d| by
// Cauchy-Schwarz. So every logit is known to lie within an interval, and only words whose interval
// reaches the K-th largest lower end can be among the K best. Those few are computed from the
// unquantised weights: the words found, and their logits, are those that VocabPart finds by panels,
// to the bit. The sum of exponentials takes the quantised logits of all words but those that might
// be the very best before constraints: it is the same whatever is wanted of the row, so a token has
// one log-probability however it is found, or given. That is off by less than the mean error of
// those words, weighed by their probability.
#pragma once

// This comes before what is compiled for the ISA (target.h).
#include "cpu/vocab_part.h"
#include "cpu/vocab_rescore.h"
#include "cpu/vocab_screen_tile.h"
#include "cpu/vocab_survivors.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

template <class S>
class VocabScreen final : public decode::VocabPart {
 public:
  static constexpr int kLanes = Vec<float>::kLanes;
  static constexpr double kLeastShare = 1.0 / 64;
  static constexpr float kAll = Bounds::kAll, kNone = Bounds::kNone;

  VocabScreen(const decode::VocabPartParams& most, int threads)
      : decode::VocabPart(most),
        threads_(threads),
        blocks_((most.V + kBlock - 1) / kBlock),
        parts_((blocks_ + kLanes - 1) / kLanes * kLanes),
        quads_((most.H + 3) / 4),
        hidden_(most.B, most.H),
        rescore_(most.H, threads),
        quantised_(std::max<int64_t>(most.B, threads) * quads_ * 4),
        rows_(std::max<int64_t>(most.B, threads)),
        maxima_(most.B * parts_),
        sums_(most.B * parts_),
        tops_(int64_t{threads} * most.B),
        survivors_(most.B, threads),
        work_(int64_t{threads} * threads * most.K),
        lower_(int64_t{threads} * most.K),
        lower_words_(int64_t{threads} * most.K),
        tokens_(most.B * most.K),
        scores_(most.B * most.K),
        log_probs_(most.B * most.K) {
    normalizers.resize(most.B);
    for (int64_t b = 0; b < most.B; ++b) {
      for (int64_t j = blocks_; j < parts_; ++j) {
        maxima_[b * parts_ + j] = kNone;
        sums_[b * parts_ + j] = 0;
      }
    }
    for (int i = 0; i < threads; ++i) {
      owned_.push_back(std::make_unique<TopK<float>>(most.B, most.K));
      best_.push_back(owned_.back().get());
      exact_.push_back(std::make_unique<TopK<float>>(1, most.K));
    }
  }

  void run(const Member& member) override {
    const int64_t begin = member.begin(params.B), end = member.end(params.B);
    for (int64_t b = begin; b < end; ++b) {
      hidden_.pack(static_cast<const S*>(params.features) + b * params.H, b, params.B);
      if (params.B > 1) quantise(b, b);
    }
    if (params.B == 1) quantise(0, member.index);
    best_[member.index]->reset(params.B);
    survivors_.reset(params.B, member);
    std::fill_n(tops_.data() + member.index * params.B, params.B, kNone);
    if (params.B > 1) member.barrier->wait();
    queue_.share_out(blocks_, member, [&](int64_t j) { block(j, member); });
    member.barrier->wait();
    if (member.index == 0) queue_.reset();  // for the next run: nobody looks at it before that
    for (int64_t b = begin; b < end; ++b) finish_row(b, member);
  }

 private:
  // Row b, to a place: its own, or, of a single row, the member's, which then waits for nobody.
  void quantise(int64_t b, int64_t place) {
    rows_[place] = quantised_row(static_cast<const S*>(params.features) + b * params.H, params.H,
                                 quantised_.data() + place * quads_ * 4);
  }
  int64_t place(int64_t b, const Member& member) const { return params.B == 1 ? member.index : b; }

  const RowConstraints* constraints(int64_t b) const {
    return params.constraints == nullptr ? nullptr : params.constraints[b];
  }

  void block(int64_t index, const Member& member) {
    const uint8_t* panels = params.screen.panels + index * kBlock * 4 * quads_;
    alignas(64) int32_t sums[8 * kBlock];
    for (int64_t b = 0; b < params.B;) {
      const int64_t taken = screen_rows(params.B - b, panels, quads_,
                                        quantised_.data() + place(b, member) * quads_ * 4,
                                        quads_ * 4, {b / 8, (params.B + 7) / 8}, sums, kBlock);
      for (int64_t i = 0; i < taken; ++i) row(b + i, index, sums + i * kBlock, member);
      b += taken;
    }
  }

  void row(int64_t b, int64_t block, const int32_t* sums, const Member& member) {
    const ScreenedRow& x = rows_[place(b, member)];
    if (!x.finite) return;
    const int64_t v = block * kBlock, count = std::min(kBlock, params.V - v);
    alignas(64) float logits[kBlock], lower[kBlock], upper[kBlock];
    intervals(x, v, sums, logits, lower, upper);
    const SoftmaxPart<float> part = softmax_part(logits, kBlock);
    maxima_[b * parts_ + block] = part.max;
    sums_[b * parts_ + block] = part.sum;
    const RowConstraints* c = constraints(b);
    if (c != nullptr) return constrained_row(*c, b, block, logits, lower, upper, member);
    TopK<float>& best = *best_[member.index];
    const auto look = [&](int64_t i) {
      if (i >= count) return;
      if (best.wants(b, lower[i])) best.offer(b, lower[i], v + i);
      const Bounds wanted{best.least(b), kAll};  // the sum's are among them
      const Survivor survivor{upper[i], upper[i], logits[i], static_cast<int32_t>(v + i)};
      if (wanted.chosen(survivor)) survivors_.keep(b, params.B, survivor, wanted, member);
    };
    each_not_below(best.least(b), upper, kBlock, look);
  }

  void constrained_row(const RowConstraints& c, int64_t b, int64_t block, const float* logits,
                       float* lower, float* upper, const Member& member) {
    const int64_t v = block * kBlock, count = std::min(kBlock, params.V - v);
    alignas(64) float plain[kBlock];
    std::copy_n(upper, kBlock, plain);
    float& most = tops_[member.index * params.B + b];
    most = std::max(most, max_of(lower, kBlock));
    constrain(c, block, lower, upper);
    TopK<float>& best = *best_[member.index];
    const bool overtaken = best.full(b) && max_of(upper, kBlock) < best.worst(b);
    if (overtaken && max_of(plain, kBlock) < most) return;
    for (int64_t i = 0; i < count; ++i) {
      if (upper[i] != kNone && best.wants(b, lower[i])) best.offer(b, lower[i], v + i);
      const Bounds wanted{best.least(b), most};
      const Survivor survivor{upper[i], plain[i], logits[i], static_cast<int32_t>(v + i)};
      if (wanted.take(survivor)) survivors_.keep(b, params.B, survivor, wanted, member);
    }
  }

  // A block's screened logits, and between which ends the true ones lie; -inf past the last word.
  void intervals(const ScreenedRow& x, int64_t v, const int32_t* sums, float* logits, float* lower,
                 float* upper) const {
    const DecodeScreen& screen = params.screen;
    const Vec<float> scale(x.scale), norm(x.norm), residual(x.residual);
    for (int64_t i = 0; i < kBlock; i += kLanes) {
      Mask<float> sum;
      std::memcpy(&sum, sums + i, sizeof(sum));
      const Vec<float> product(__builtin_convertvector(sum - 128 * x.sum, Vec<float>::Native));
      const Vec<float> logit =
          fma(product * scale, load(screen.scale + v + i), load(screen.bias + v + i));
      const Vec<float> error =
          fma(load(screen.residual + v + i), norm,
              fma(load(screen.norm + v + i), residual, load(screen.slack + v + i)));
      store<float>(logits + i, logit);
      store<float>(lower + i, logit - error);
      store<float>(upper + i, logit + error);
    }
    for (int64_t i = std::min(kBlock, params.V - v); i < kBlock; ++i) {
      logits[i] = lower[i] = upper[i] = kNone;
    }
  }

  // Bans, and penalties on both ends of an interval; a forced word's stays as it is.
  void constrain(const RowConstraints& c, int64_t block, float* lower, float* upper) const {
    const int64_t first = block * kBlock, last = std::min(first + kBlock, params.V);
    if (c.forced >= 0) {
      for (int64_t i = 0; i < kBlock; ++i) {
        if (first + i != c.forced) lower[i] = upper[i] = kNone;
      }
      return;
    }
    const auto each = [first, last](const std::vector<int64_t>& words, const auto& body) {
      for (auto i = std::lower_bound(words.begin(), words.end(), first);
           i != words.end() && *i < last; ++i) {
        body(*i - first);
      }
    };
    const auto ban = [&](int64_t i) { lower[i] = upper[i] = kNone; };
    each(c.seen, [&](int64_t i) {
      // Rounding once more, so the ends move a little further out.
      const double low = decode::penalize(lower[i], params.repetition_penalty);
      const double high = decode::penalize(upper[i], params.repetition_penalty);
      lower[i] = static_cast<float>(low - std::abs(low) * 1e-6);
      upper[i] = static_cast<float>(high + std::abs(high) * 1e-6);
    });
    for (int64_t i = 0; c.banned != nullptr && i < last - first; ++i) {
      if (c.banned[(first + i) / 32] >> ((first + i) % 32) & 1) ban(i);
    }
    each(c.also_banned, ban);
  }

  // Words whose logits are to be computed from the unquantised weights, a vector at a time.
  struct Pending {
    Survivor survivors[kLanes];
    int count = 0;
  };

  // logits[i] of words[i].
  void exact(int64_t b, const int64_t* words, int count, const Member& member,
             float* logits) const {
    rescore_.run(params.weight, params.bias, hidden_.group(b), words, count, member, logits);
  }

  void finish_row(int64_t b, const Member& member) {
    decode::Candidates& out = candidates[b] = {};
    normalizers[b] = {0, std::nan("")};
    out.finite = rows_[place(b, member)].finite;
    if (!out.finite) return;
    SoftmaxPart<float> all =
        merge_parts(maxima_.data() + b * parts_, sums_.data() + b * parts_, parts_);
    TopK<float>& top = *exact_[member.index];
    top.reset(1);
    double sum = all.sum;
    const RowConstraints* c = constraints(b);
    const bool forced = c != nullptr && c->forced >= 0;
    const Bounds wanted = bounds(b, member);
    Pending pending;
    const auto flush = [&] {
      int64_t words[kLanes];
      float logits[kLanes];
      for (int i = 0; i < pending.count; ++i) words[i] = pending.survivors[i].word;
      exact(b, words, pending.count, member, logits);
      for (int i = 0; i < pending.count; ++i) {
        const Survivor& s = pending.survivors[i];
        if (wanted.summed(s)) {
          sum += std::exp(double(logits[i]) - all.max) - std::exp(double(s.quantised) - all.max);
        }
        if (!wanted.chosen(s)) continue;
        top.offer(0, forced ? logits[i] : constrained(b, words[i], logits[i]), words[i]);
      }
      pending.count = 0;
    };
    const auto take = [&](const Survivor& survivor) {
      pending.survivors[pending.count++] = survivor;
      if (pending.count == kLanes) flush();
    };
    const auto fetch = [&](int64_t word) { rescore_.fetch(params.weight, word); };
    if (!survivors_.each(b, params.B, wanted, member, fetch, take)) {
      for_all(b, wanted, member, take);
    }
    if (pending.count > 0) flush();
    // Where most of the screen's sum was taken away again, what is left of it is rounding.
    const bool sound = sum >= kLeastShare * all.sum && sum <= std::numeric_limits<float>::max();
    if (!sound) {
      all = exact_softmax(b, member);
      sum = all.sum;
    }
    out.finite = sum > 0;
    if (!out.finite) return;
    normalizers[b] = {all.max, std::log(sum)};
    fill(b, top, all.max, normalizers[b].log_sum, member, &out);
  }

  // A seen word's logit after the penalty; what it was is kept.
  float constrained(int64_t b, int64_t word, float logit) const {
    const RowConstraints* c = constraints(b);
    if (c == nullptr || c->seen.empty()) return logit;
    const auto found = std::lower_bound(c->seen.begin(), c->seen.end(), word);
    if (found == c->seen.end() || *found != word) return logit;
    const_cast<RowConstraints*>(c)->seen_logits[found - c->seen.begin()] = logit;
    return static_cast<float>(decode::penalize(logit, params.repetition_penalty));
  }

  // Once all words have been seen.
  Bounds bounds(int64_t b, const Member& member) {
    Candidate<float>* const work = work_.data() + int64_t{member.index} * threads_ * params.K;
    float* const lower = lower_.data() + member.index * params.K;
    int64_t* const words = lower_words_.data() + member.index * params.K;
    const int64_t count = TopK<float>::merge(best_.data(), member.size, b, work, lower, words);
    const float least = count < params.K ? kNone : lower[params.K - 1];
    if (constraints(b) == nullptr) return {least, count == 0 ? kNone : lower[0]};
    float most = kNone;
    for (int i = 0; i < member.size; ++i) most = std::max(most, tops_[i * params.B + b]);
    return {least, most};
  }

  // Too many for the lists: every word that is wanted, screened again.
  template <class Take>
  void for_all(int64_t b, const Bounds& wanted, const Member& member, const Take& take) {
    for (int64_t index = 0; index < blocks_; ++index) {
      screen_again(b, index, member, [&](const Survivor& survivor) {
        if (wanted.take(survivor)) take(survivor);
      });
    }
  }

  // body(survivor) for every word of a block of one row.
  template <class Body>
  void screen_again(int64_t b, int64_t index, const Member& member, const Body& body) {
    alignas(64) int32_t sums[kBlock];
    const int64_t v = index * kBlock, count = std::min(kBlock, params.V - v);
    screen_rows<1>(1, params.screen.panels + v * 4 * quads_, quads_,
                   quantised_.data() + place(b, member) * quads_ * 4, 0, {0, 1}, sums, kBlock);
    alignas(64) float logits[kBlock], lower[kBlock], upper[kBlock];
    intervals(rows_[place(b, member)], v, sums, logits, lower, upper);
    alignas(64) float plain[kBlock];
    std::copy_n(upper, kBlock, plain);
    if (const RowConstraints* c = constraints(b)) constrain(*c, index, lower, upper);
    for (int64_t i = 0; i < count; ++i) {
      body(Survivor{upper[i], plain[i], logits[i], static_cast<int32_t>(v + i)});
    }
  }

  // VocabPart's, to the bit.
  SoftmaxPart<float> exact_softmax(int64_t b, const Member& member) {
    for (int64_t index = 0; index < blocks_; ++index) {
      alignas(64) float logits[kBlock];
      std::fill(logits, logits + kBlock, kNone);
      const int64_t first = index * kBlock, last = std::min(first + kBlock, params.V);
      for (int64_t v = first; v < last; v += kLanes) {
        int64_t words[kLanes];
        const int count = static_cast<int>(std::min<int64_t>(kLanes, last - v));
        for (int i = 0; i < count; ++i) words[i] = v + i;
        exact(b, words, count, member, logits + (v - first));
      }
      const SoftmaxPart<float> part = softmax_part(logits, kBlock);
      maxima_[b * parts_ + index] = part.max;
      sums_[b * parts_ + index] = part.sum;
    }
    return merge_parts(maxima_.data() + b * parts_, sums_.data() + b * parts_, parts_);
  }

  void fill(int64_t b, TopK<float>& top, float max, double log_sum, const Member& member,
            decode::Candidates* out) {
    float* const values = lower_.data() + member.index * params.K;
    int64_t* const words = lower_words_.data() + member.index * params.K;
    TopK<float>* const streams[] = {&top};
    out->count = TopK<float>::merge(
        streams, 1, 0, work_.data() + int64_t{member.index} * threads_ * params.K, values, words);
    const int64_t at = b * params.K;
    for (int64_t k = 0; k < out->count; ++k) {
      const decode::Scored scored = decode::scored<float>(
          words[k], values[k], max, log_sum, constraints(b), params.repetition_penalty);
      tokens_[at + k] = params.tokens == nullptr ? words[k] : params.tokens[words[k]];
      scores_[at + k] = scored.score;
      log_probs_[at + k] = scored.log_prob;
    }
    out->tokens = tokens_.data() + at;
    out->scores = scores_.data() + at;
    out->log_probs = log_probs_.data() + at;
  }

  const int threads_;
  const int64_t blocks_, parts_, quads_;
  const GroupedRows<S, 1> hidden_;  // (B)
  const VocabRescore<S> rescore_;
  ScratchArray<int8_t> quantised_;     // (B, quads, 4)
  ScratchArray<ScreenedRow> rows_;     // (B)
  ScratchArray<float> maxima_, sums_;  // (B, parts): softmax_part of each block, screened
  ScratchArray<float> tops_;           // (threads, B): the largest lower end before constraints
  Survivors survivors_;
  ScratchArray<Candidate<float>> work_;  // (threads, threads, K): for merging
  ScratchArray<float> lower_;            // (threads, K)
  ScratchArray<int64_t> lower_words_;    // (threads, K)
  ScratchArray<int64_t> tokens_;         // (B, K), and so below
  ScratchArray<double> scores_, log_probs_;
  std::vector<std::unique_ptr<TopK<float>>> owned_, exact_;
  std::vector<TopK<float>*> best_;  // lower ends; one a thread
  BlockQueue queue_;
};

}  // namespace

decode::VocabPart* make_vocab_screen(const decode::VocabPartParams& most, int threads) {
  if (most.dtype == DType::kFloat32) return new VocabScreen<float>(most, threads);
  if (most.dtype == DType::kBFloat16) return new VocabScreen<BFloat16>(most, threads);
  return nullptr;
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
