// SPDX-License-Identifier: MIT
// The K best words by way of an int8 copy of the weights, for one ISA: a quarter of float32's
// bytes. Included by vocab_<isa>.cpp only.
//
// With w = s q + r (q: int8) and x = t p + d (p: int8), |w x - s t q p| <= |r| |x| + s |q| |d| by
// Cauchy-Schwarz. So every logit is known to lie within an interval, and only words whose interval
// reaches the K-th largest lower end can be among the K best. Those few are computed from the
// unquantised weights: the words found, and their logits, are those that VocabPart finds, to the
// bit. The sum of exponentials takes the quantised logits of all other words, so a
// log-probability is off by less than the mean error of those, weighed by their probability.
#pragma once

// This comes before what is compiled for the ISA (target.h).
#include "cpu/vocab_part.h"
#include "cpu/vocab_screen_tile.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

// A word that might be among the K best.
struct Survivor {
  float upper, quantised;  // its logit is at most `upper`, after constraints; that of the screen
  int32_t word;
};

template <class S>
class VocabScreen final : public decode::VocabPart {
 public:
  using P = Product<S>;
  static constexpr int kLanes = Vec<float>::kLanes;
  static constexpr int64_t kMostSurvivors = 1024;  // of a row and a thread; else all are computed
  static constexpr float kLeastFeature = 1e-30f;
  static constexpr double kLeastShare = 1.0 / 64;

  VocabScreen(const decode::VocabPartParams& most, int threads)
      : decode::VocabPart(most),
        threads_(threads),
        blocks_((most.V + kBlock - 1) / kBlock),
        parts_((blocks_ + kLanes - 1) / kLanes * kLanes),
        stride_(padded_length<P>(most.H)),
        quads_((most.H + 3) / 4),
        hidden_(most.B * stride_),
        quantised_(most.B * quads_ * 4),
        rows_(most.B),
        maxima_(most.B * parts_),
        sums_(most.B * parts_),
        counts_(int64_t{threads} * most.B),
        survivors_(int64_t{threads} * most.B * kMostSurvivors),
        work_(int64_t{threads} * threads * most.K),
        lower_(int64_t{threads} * most.K),
        lower_words_(int64_t{threads} * most.K),
        tokens_(most.B * most.K),
        scores_(most.B * most.K),
        log_probs_(most.B * most.K) {
    for (int64_t b = 0; b < most.B; ++b) {
      for (int64_t j = blocks_; j < parts_; ++j) {
        maxima_[b * parts_ + j] = -std::numeric_limits<float>::infinity();
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
    pack_activations<P>(static_cast<const S*>(params.features) + begin * params.H, end - begin,
                        params.H, hidden_.data() + begin * stride_);
    for (int64_t b = begin; b < end; ++b) quantise(b);
    if (member.index == 0) queue_.reset();
    best_[member.index]->reset(params.B);
    std::fill_n(counts_.data() + member.index * params.B, params.B, int64_t{0});
    member.barrier->wait();
    queue_.share_out(blocks_, member, [&](int64_t j) { block(j, member); });
    member.barrier->wait();
    for (int64_t b = begin; b < end; ++b) finish_row(b, member);
  }

 private:
  // x = scale * p + d.
  struct Row {
    float scale, norm, residual;  // |x| and |d|, at least
    int32_t sum;                  // of p
    bool finite;
  };

  const RowConstraints* constraints(int64_t b) const {
    return params.constraints == nullptr ? nullptr : params.constraints[b];
  }

  void quantise(int64_t b) {
    const S* x = static_cast<const S*>(params.features) + b * params.H;
    int8_t* p = quantised_.data() + b * quads_ * 4;
    float most = 0;
    bool finite = true;
    for (int64_t k = 0; k < params.H; ++k) {
      const float value = to_acc(x[k]);
      finite = finite && std::abs(value) <= std::numeric_limits<float>::max();
      most = std::max(most, std::abs(value));
    }
    Row row{most / 127, 0, 0, 0, finite};
    // The inverse of less may be infinite; p = 0 will do, all of x is then residual.
    const float inverse = most > kLeastFeature ? 127 / most : 0;
    double norm = 0, residual = 0;
    for (int64_t k = 0; finite && k < params.H; ++k) {
      const float value = to_acc(x[k]);
      p[k] = static_cast<int8_t>(std::nearbyint(std::clamp(value * inverse, -127.0f, 127.0f)));
      const double d = double(value) - double(row.scale) * p[k];
      norm += double(value) * value;
      residual += d * d;
      row.sum += p[k];
    }
    std::fill(p + params.H, p + quads_ * 4, int8_t(0));
    // A little more than rounding takes away.
    row.norm = static_cast<float>(std::sqrt(norm) * (1 + 1e-6));
    row.residual = static_cast<float>(std::sqrt(residual) * (1 + 1e-6));
    rows_[b] = row;
  }

  void block(int64_t index, const Member& member) {
    const int64_t v = index * kBlock, panel_bytes = quads_ * 64;
    const uint8_t* panels = params.screen.panels + v / kPanelWords * panel_bytes;
    alignas(64) int32_t sums[8 * kBlock];
    for (int64_t b = 0; b < params.B;) {
      int64_t taken = 0;
      for (int64_t j = 0; j < kBlock; j += kPanels * kPanelWords) {
        taken =
            screen_rows(params.B - b, panels + j / kPanelWords * panel_bytes, panel_bytes, quads_,
                        quantised_.data() + b * quads_ * 4, quads_ * 4, sums + j, kBlock);
      }
      for (int64_t i = 0; i < taken; ++i) row(b + i, index, sums + i * kBlock, member);
      b += taken;
    }
  }

  void row(int64_t b, int64_t block, const int32_t* sums, const Member& member) {
    if (!rows_[b].finite) return;
    const int64_t v = block * kBlock, count = std::min(kBlock, params.V - v);
    alignas(64) float logits[kBlock], lower[kBlock], upper[kBlock];
    intervals(b, v, sums, logits, lower, upper);
    const SoftmaxPart<float> part = softmax_part(logits, kBlock);
    maxima_[b * parts_ + block] = part.max;
    sums_[b * parts_ + block] = part.sum;
    const RowConstraints* c = constraints(b);
    if (c != nullptr && c->forced >= 0) return;
    if (c != nullptr) constrain(*c, block, lower, upper);
    const float top = max_of(upper, kBlock);
    TopK<float>& best = *best_[member.index];
    if (best.full(b) && top < best.worst(b)) return;
    for (int64_t i = 0; i < count; ++i) {
      if (upper[i] == -std::numeric_limits<float>::infinity()) continue;
      if (best.wants(b, lower[i])) best.offer(b, lower[i], v + i);
      if (best.full(b) && upper[i] < best.worst(b)) continue;
      keep(b, {upper[i], logits[i], static_cast<int32_t>(v + i)}, best, member);
    }
  }

  // A block's screened logits, and between which ends the true ones lie; -inf past the last word.
  void intervals(int64_t b, int64_t v, const int32_t* sums, float* logits, float* lower,
                 float* upper) const {
    const Row& x = rows_[b];
    const DecodeScreen& screen = params.screen;
    const Vec<float> scale(x.scale), norm(x.norm), residual(x.residual);
    for (int64_t i = 0; i < kBlock; i += kLanes) {
      alignas(64) float converted[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        converted[j] = static_cast<float>(sums[i + j] - 128 * x.sum);
      }
      const Vec<float> logit =
          fma(load(converted) * scale, load(screen.scale + v + i), load(screen.bias + v + i));
      const Vec<float> error =
          fma(load(screen.residual + v + i), norm,
              fma(load(screen.norm + v + i), residual, load(screen.slack + v + i)));
      store<float>(logits + i, logit);
      store<float>(lower + i, logit - error);
      store<float>(upper + i, logit + error);
    }
    for (int64_t i = std::min(kBlock, params.V - v); i < kBlock; ++i) {
      logits[i] = lower[i] = upper[i] = -std::numeric_limits<float>::infinity();
    }
  }

  // Bans, and penalties on both ends of an interval.
  void constrain(const RowConstraints& c, int64_t block, float* lower, float* upper) const {
    const int64_t first = block * kBlock, last = std::min(first + kBlock, params.V);
    const auto each = [first, last](const std::vector<int64_t>& words, const auto& body) {
      for (auto i = std::lower_bound(words.begin(), words.end(), first);
           i != words.end() && *i < last; ++i) {
        body(*i - first);
      }
    };
    const auto ban = [&](int64_t i) {
      lower[i] = upper[i] = -std::numeric_limits<float>::infinity();
    };
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

  void keep(int64_t b, const Survivor& survivor, const TopK<float>& best, const Member& member) {
    const int64_t at = member.index * params.B + b;
    int64_t& count = counts_[at];
    Survivor* const list = survivors_.data() + at * kMostSurvivors;
    if (count == kMostSurvivors) {  // some have been overtaken since
      count = std::remove_if(list, list + count,
                             [&](const Survivor& s) { return s.upper < best.worst(b); }) -
              list;
    }
    if (count >= kMostSurvivors) {
      count = kMostSurvivors + 1;  // from now on: all words
    } else {
      list[count++] = survivor;
    }
  }

  // The word's logit from the unquantised weights: VocabPart's, to the bit.
  float exact(int64_t b, int64_t word) const {
    float out[kTileRows * (kTileWeights + kTileOverhang)];
    row_products<P>(static_cast<const S*>(params.weight) + word * params.H, params.H, 1, params.H,
                    hidden_.data() + b * stride_, stride_, 1, out, kTileWeights + kTileOverhang,
                    false);
    const float bias =
        params.bias == nullptr ? 0.0f : to_acc(static_cast<const S*>(params.bias)[word]);
    return out[0] + bias;
  }

  void finish_row(int64_t b, const Member& member) {
    decode::Candidates& out = candidates[b] = {};
    out.finite = rows_[b].finite;
    if (!out.finite) return;
    SoftmaxPart<float> all =
        merge_parts(maxima_.data() + b * parts_, sums_.data() + b * parts_, parts_);
    TopK<float>& top = *exact_[member.index];
    top.reset(1);
    double sum = all.sum;
    const auto corrected = [&](int64_t word, float quantised) {
      const float logit = exact(b, word);
      sum += std::exp(double(logit) - all.max) - std::exp(double(quantised) - all.max);
      return logit;
    };
    const auto take = [&](const Survivor& survivor) {
      const float logit = corrected(survivor.word, survivor.quantised);
      top.offer(0, constrained(b, survivor.word, logit), survivor.word);
    };
    const RowConstraints* c = constraints(b);
    if (c != nullptr && c->forced >= 0) {
      screen_again(b, c->forced / kBlock, [&](int64_t v, float logit, float) {
        if (v == c->forced) top.offer(0, corrected(v, logit), v);
      });
    } else {
      for_survivors(b, member, take);
    }
    // Where most of the screen's sum was taken away again, what is left of it is rounding.
    const bool sound = sum >= kLeastShare * all.sum && sum <= std::numeric_limits<float>::max();
    if (!sound) {
      all = exact_softmax(b);
      sum = all.sum;
    }
    out.finite = sum > 0;
    if (!out.finite) return;
    fill(b, top, all.max, std::log(sum), member, &out);
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

  // By ascending word, whichever thread has found them.
  template <class Take>
  void for_survivors(int64_t b, const Member& member, const Take& take) {
    Candidate<float>* const work = work_.data() + int64_t{member.index} * threads_ * params.K;
    float* const lower = lower_.data() + member.index * params.K;
    int64_t* const words = lower_words_.data() + member.index * params.K;
    const int64_t count = TopK<float>::merge(best_.data(), member.size, b, work, lower, words);
    const float least =
        count < params.K ? -std::numeric_limits<float>::infinity() : lower[params.K - 1];
    Survivor* const first = survivors_.data() + b * kMostSurvivors;  // of the first thread
    int64_t total = 0;
    for (int i = 0; i < member.size; ++i) {
      const int64_t found = counts_[i * params.B + b];
      if (found > kMostSurvivors) return for_all(b, least, take);
      Survivor* const list = survivors_.data() + (i * params.B + b) * kMostSurvivors;
      for (int64_t j = 0; j < found; ++j) {
        if (list[j].upper < least) continue;
        if (total == kMostSurvivors) return for_all(b, least, take);
        first[total++] = list[j];  // never past what has been read of the first thread's
      }
    }
    std::sort(first, first + total,
              [](const Survivor& a, const Survivor& b) { return a.word < b.word; });
    for (int64_t j = 0; j < total; ++j) take(first[j]);
  }

  // Too many for the lists: every word that may be chosen, screened again.
  template <class Take>
  void for_all(int64_t b, float least, const Take& take) {
    for (int64_t index = 0; index < blocks_; ++index) {
      screen_again(b, index, [&](int64_t v, float logit, float upper) {
        if (upper == -std::numeric_limits<float>::infinity() || upper < least) return;
        take({upper, logit, static_cast<int32_t>(v)});
      });
    }
  }

  // body(word, logit, the upper end after constraints) for a block of one row.
  template <class Body>
  void screen_again(int64_t b, int64_t index, const Body& body) {
    alignas(64) int32_t sums[kBlock];
    const int64_t panel_bytes = quads_ * 64;
    const int64_t v = index * kBlock, count = std::min(kBlock, params.V - v);
    for (int64_t j = 0; j < kBlock; j += kPanels * kPanelWords) {
      screen_tile<1>(params.screen.panels + (v + j) / kPanelWords * panel_bytes, panel_bytes,
                     quads_, quantised_.data() + b * quads_ * 4, 0, sums + j, kBlock);
    }
    alignas(64) float logits[kBlock], lower[kBlock], upper[kBlock];
    intervals(b, v, sums, logits, lower, upper);
    if (const RowConstraints* c = constraints(b)) constrain(*c, index, lower, upper);
    for (int64_t i = 0; i < count; ++i) body(v + i, logits[i], upper[i]);
  }

  // VocabPart's, to the bit.
  SoftmaxPart<float> exact_softmax(int64_t b) {
    for (int64_t index = 0; index < blocks_; ++index) {
      alignas(64) float logits[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t word = index * kBlock + i;
        logits[i] = word < params.V ? exact(b, word) : -std::numeric_limits<float>::infinity();
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
  const int64_t blocks_, parts_, stride_, quads_;
  ScratchArray<typename P::Activation> hidden_;  // (B, stride)
  ScratchArray<int8_t> quantised_;               // (B, quads, 4)
  ScratchArray<Row> rows_;                       // (B)
  ScratchArray<float> maxima_, sums_;            // (B, parts): softmax_part of each block, screened
  ScratchArray<int64_t> counts_;                 // (threads, B)
  ScratchArray<Survivor> survivors_;             // (threads, B, kMostSurvivors)
  ScratchArray<Candidate<float>> work_;          // (threads, threads, K): for merging
  ScratchArray<float> lower_;                    // (threads, K)
  ScratchArray<int64_t> lower_words_;            // (threads, K)
  ScratchArray<int64_t> tokens_;                 // (B, K), and so below
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
