// SPDX-License-Identifier: MIT
#include "cpu/decode/ensemble.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "cpu/decode/exact.h"
#include "cpu/decode/nucleus.h"
#include "cpu/scratch.h"
#include "cpu/top_k.h"

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

constexpr int64_t kBlock = 128;  // words that are combined at a time

// The combined log-probabilities of `n` words, at most kBlock: into the first of `models` rows.
void combine(double (*rows)[kBlock], int64_t models, int64_t n, bool log_probabilities) {
  double* const first = rows[0];
  const auto average = [&] {
    for (int64_t m = 1; m < models; ++m) {
      for (int64_t i = 0; i < n; ++i) first[i] += rows[m][i];
    }
    for (int64_t i = 0; i < n; ++i) first[i] /= static_cast<double>(models);
  };
  if (log_probabilities) return average();
  double top[kBlock];
  std::copy_n(first, n, top);
  for (int64_t m = 1; m < models; ++m) {
    for (int64_t i = 0; i < n; ++i) top[i] = std::max(top[i], rows[m][i]);
  }
  for (int64_t m = 0; m < models; ++m) {
    for (int64_t i = 0; i < n; ++i) rows[m][i] = top[i] == -kInfinity ? 0 : rows[m][i] - top[i];
    exact_exp_each(rows[m], n);
  }
  average();
  exact_log_each(first, n);
  for (int64_t i = 0; i < n; ++i) first[i] += top[i];
}

template <class T>  // the state
class Ensemble final : public VocabPart {
 public:
  Ensemble(const VocabPartParams& most, const std::vector<VocabPart*>& parts,
           bool log_probabilities, int threads)
      : VocabPart(most),
        parts_(parts),
        models_(static_cast<int64_t>(parts.size())),
        log_probabilities_(log_probabilities),
        threads_(threads),
        blocks_((most.V + kBlock - 1) / kBlock),
        stride_(blocks_ * kBlock),
        kept_(most.task == VocabTask::kBest ? most.K : 1),
        all_(most.task == VocabTask::kForced ? 0 : most.B * stride_),
        choice_(most.task == VocabTask::kNucleus ? most.B * stride_ : 0),
        partitions_(most.B),
        work_(int64_t{threads} * threads * kept_),
        values_(most.B * kept_),
        indices_(most.B * kept_),
        tokens_(most.B * kept_),
        scores_(most.B * kept_),
        log_probs_(most.B * kept_),
        rows_(threads * models_ * kBlock) {
    for (int i = 0; most.task == VocabTask::kBest && i < threads; ++i) {
      owned_.push_back(std::make_unique<TopK<T>>(most.B, most.K));
      best_.push_back(owned_.back().get());
    }
    if (most.task == VocabTask::kNucleus) nuclei_.resize(most.B);
    for (Nucleus& nucleus : nuclei_) nucleus.reserve(most.V);
    log_probs = all_.data();
    log_probs_stride = stride_;
  }

  void run(const Member& member) override {
    for (VocabPart* part : parts_) part->run(member);
    if (member.index == 0) next_.store(0, std::memory_order_relaxed);
    if (params.task == VocabTask::kBest) best_[member.index]->reset(params.B);
    member.barrier->wait();
    const int64_t begin = member.begin(params.B), end = member.end(params.B);
    if (params.task != VocabTask::kForced) {
      for (int64_t b = begin; b < end; ++b) partitions_[b] = partition(b);
      member.barrier->wait();
      const int64_t count = params.B * blocks_;
      for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) {
        block(i / blocks_, i % blocks_, member);
      }
      member.barrier->wait();
    }
    for (int64_t b = begin; b < end; ++b) finish_row(b, member);
  }

 private:
  using Rows = double (*)[kBlock];

  const RowConstraints* constraints(int64_t b) const {
    return params.constraints == nullptr ? nullptr : params.constraints[b];
  }
  int64_t words(int64_t b) const {
    return params.lists == nullptr ? params.V : params.lists[b].count;
  }
  const int64_t* tokens(int64_t b) const {
    return params.lists == nullptr ? params.tokens : params.lists[b].tokens;
  }
  bool finite(int64_t b) const {
    return std::all_of(parts_.begin(), parts_.end(),
                       [b](const VocabPart* part) { return part->candidates[b].finite; });
  }

  // Logit less log-probability, the mean of the models'.
  double partition(int64_t b) const {
    double total = parts_[0]->partitions[b];
    for (int64_t m = 1; m < models_; ++m) total += parts_[m]->partitions[b];
    return total / static_cast<double>(models_);
  }

  void block(int64_t b, int64_t index, const Member& member) {
    const int64_t v = index * kBlock, n = std::min(kBlock, words(b) - v);
    if (n <= 0) return;
    const RowConstraints* c = constraints(b);
    const Rows rows = reinterpret_cast<Rows>(rows_.data() + member.index * models_ * kBlock);
    for (int64_t m = 0; m < models_; ++m) load(*parts_[m], b, v, n, rows[m]);
    int64_t chosen[kBlock];
    const bool best = params.task == VocabTask::kBest;
    const bool forced = c != nullptr && c->forced >= 0;
    const int64_t count = best && !params.all && !forced
                              ? choose(rows, *best_[member.index], c, b, v, n, chosen)
                              : choose_all(n, chosen);
    combine(rows, models_, count, log_probabilities_);
    T* const all = all_.data() + b * stride_ + v;
    T scores[kBlock];
    for (int64_t i = 0; i < count; ++i) {
      all[chosen[i]] = scores[chosen[i]] = static_cast<T>(rows[0][i]);
    }
    if (forced) return;
    if (c != nullptr) constrain(*c, b, v, n, scores);
    if (params.task == VocabTask::kNucleus) {
      std::copy_n(scores, n, choice_.data() + b * stride_ + v);
      return;
    }
    TopK<T>& kept = *best_[member.index];
    for (int64_t i = 0; i < count; ++i) {
      const T score = scores[chosen[i]];
      if (kept.wants(b, score)) kept.offer(b, score, v + chosen[i]);
    }
  }

  static void load(const VocabPart& part, int64_t b, int64_t v, int64_t n, double* to) {
    const int64_t at = b * part.log_probs_stride + v;
    if (part.params.dtype == DType::kFloat64) {
      std::copy_n(static_cast<const double*>(part.log_probs) + at, n, to);
    } else {
      std::copy_n(static_cast<const float*>(part.log_probs) + at, n, to);
    }
  }

  static int64_t choose_all(int64_t n, int64_t* chosen) {
    for (int64_t i = 0; i < n; ++i) chosen[i] = i;
    return n;
  }

  // Which words may be among the best, and only their columns of `rows`: a mean is at most the
  // largest of its terms. What a penalty might raise is one of them.
  int64_t choose(Rows rows, const TopK<T>& best, const RowConstraints* c, int64_t b, int64_t first,
                 int64_t n, int64_t* chosen) const {
    if (!best.full(b)) return choose_all(n, chosen);
    bool seen[kBlock] = {};
    for (size_t i = 0; c != nullptr && i < c->seen.size(); ++i) {
      const int64_t at = c->seen[i] - first;
      if (at >= 0 && at < n) seen[at] = true;
    }
    double top[kBlock];
    std::copy_n(rows[0], n, top);
    for (int64_t m = 1; m < models_; ++m) {
      for (int64_t i = 0; i < n; ++i) top[i] = std::max(top[i], rows[m][i]);
    }
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (static_cast<T>(top[i]) > best.worst(b) || seen[i]) chosen[count++] = i;
    }
    for (int64_t m = 0; m < models_; ++m) {
      for (int64_t i = 0; i < count; ++i) rows[m][i] = rows[m][chosen[i]];
    }
    return count;
  }

  T penalized(int64_t b, double log_prob) const {
    const double logit = log_prob + partitions_[b];
    return static_cast<T>(penalize(logit, params.repetition_penalty) - partitions_[b]);
  }

  void constrain(const RowConstraints& c, int64_t b, int64_t first, int64_t n, T* scores) const {
    const auto each = [&](const std::vector<int64_t>& words, const auto& body) {
      for (auto i = std::lower_bound(words.begin(), words.end(), first);
           i != words.end() && *i < first + n; ++i) {
        body(*i - first);
      }
    };
    const auto ban = [&](int64_t i) { scores[i] = -std::numeric_limits<T>::infinity(); };
    each(c.seen, [&](int64_t i) { scores[i] = penalized(b, scores[i]); });
    for (int64_t i = 0; c.banned != nullptr && i < n; ++i) {
      if (c.banned[(first + i) / 32] >> ((first + i) % 32) & 1) ban(i);
    }
    each(c.also_banned, ban);
  }

  void finish_row(int64_t b, const Member& member) {
    Candidates& out = candidates[b] = {};
    out.finite = finite(b);
    if (!out.finite) return;
    if (params.task == VocabTask::kForced) return given(b, member, &out);
    const RowConstraints* c = constraints(b);
    const T* const all = all_.data() + b * stride_;
    if (c != nullptr && c->forced >= 0) {
      const bool seen = std::binary_search(c->seen.begin(), c->seen.end(), c->forced);
      indices_[b * kept_] = c->forced;
      values_[b * kept_] = seen ? penalized(b, all[c->forced]) : all[c->forced];
      out.count = 1;
    } else if (params.task == VocabTask::kNucleus) {
      nuclei_[b].list(choice_.data() + b * stride_, words(b), tokens(b), params, nullptr, T(0), 0,
                      &out, all);
      return;
    } else {
      out.count = TopK<T>::merge(best_.data(), member.size, b,
                                 work_.data() + int64_t{member.index} * threads_ * kept_,
                                 values_.data() + b * kept_, indices_.data() + b * kept_);
    }
    const int64_t at = b * kept_;
    const int64_t* const named = tokens(b);
    for (int64_t i = 0; i < out.count; ++i) {
      const int64_t word = indices_[at + i];
      if (values_[at + i] == -std::numeric_limits<T>::infinity()) out.count = i;
      tokens_[at + i] = named == nullptr ? word : named[word];
      scores_[at + i] = values_[at + i];
      log_probs_[at + i] = all[word];
    }
    out.tokens = tokens_.data() + at;
    out.scores = scores_.data() + at;
    out.log_probs = log_probs_.data() + at;
  }

  // The word that each of the parts was given.
  void given(int64_t b, const Member& member, Candidates* out) {
    const Rows rows = reinterpret_cast<Rows>(rows_.data() + member.index * models_ * kBlock);
    for (int64_t m = 0; m < models_; ++m) rows[m][0] = *parts_[m]->candidates[b].log_probs;
    combine(rows, models_, 1, log_probabilities_);
    out->count = 1;
    tokens_[b] = *parts_[0]->candidates[b].tokens;
    scores_[b] = log_probs_[b] = static_cast<T>(rows[0][0]);
    out->tokens = tokens_.data() + b;
    out->scores = scores_.data() + b;
    out->log_probs = log_probs_.data() + b;
  }

  const std::vector<VocabPart*> parts_;
  const int64_t models_;
  const bool log_probabilities_;
  const int threads_;
  const int64_t blocks_, stride_, kept_;
  ScratchArray<T> all_;              // (B, stride): of the ensemble
  ScratchArray<T> choice_;           // (B, stride), kNucleus: after constraints
  ScratchArray<double> partitions_;  // (B)
  ScratchArray<Candidate<T>> work_;  // (threads, threads, kept): for merging
  ScratchArray<T> values_;           // (B, kept), and so below
  ScratchArray<int64_t> indices_, tokens_;
  ScratchArray<double> scores_, log_probs_;
  ScratchArray<double> rows_;  // (threads, models, kBlock)
  std::vector<std::unique_ptr<TopK<T>>> owned_;
  std::vector<TopK<T>*> best_;  // one a thread
  std::vector<Nucleus> nuclei_;
  std::atomic<int64_t> next_{0};
};

}  // namespace

std::unique_ptr<VocabPart> make_ensemble(const VocabPartParams& most,
                                         const std::vector<VocabPart*>& parts,
                                         bool log_probabilities, int threads) {
  const bool wide = std::any_of(parts.begin(), parts.end(), [](const VocabPart* part) {
    return part->params.dtype == DType::kFloat64;
  });
  if (wide) return std::make_unique<Ensemble<double>>(most, parts, log_probabilities, threads);
  return std::make_unique<Ensemble<float>>(most, parts, log_probabilities, threads);
}

}  // namespace seq2seq_ext::kernels::cpu::decode
