// SPDX-License-Identifier: MIT
#include "cpu/decode/beam.h"

#include <algorithm>
#include <cmath>

#include "cpu/decode/exact.h"

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

constexpr double kLeastShare = std::numeric_limits<float>::min();

// Into the k best, after its equals; what has no rank counts nowhere.
void insert(const Hypothesis& hypothesis, int64_t k, Hypothesis* best) {
  int64_t place = k;
  while (place > 0 && best[place - 1].rank < hypothesis.rank) --place;
  if (place == k) return;
  std::move_backward(best + place, best + k - 1, best + k);
  best[place] = hypothesis;
}

}  // namespace

// A group takes the best k(1 + eos) candidates, for that many may end their hypothesis; other
// groups' beams may move some behind others.
BeamSearch::BeamSearch(const DecodeOptions& options, const DecodeSources& sources,
                       int64_t num_words)
    : options_(options),
      width_(options.slots / options.groups),
      wanted_(std::min(
          width_ * (1 + static_cast<int64_t>(options.eos.size())) + (options.slots - width_),
          num_words)),
      positions_(sources.S),
      lengths_(sources.lengths),
      longest_norm_(norm(options.max_new_tokens)),
      sources_(sources.B) {}

void BeamSearch::begin(int64_t source, Choice* choices) {
  const int64_t K = options_.slots;
  auto s = std::make_unique<Source>();
  s->scores.assign(K, -kInfinity);
  s->running.resize(K);
  s->finished.resize(K);
  s->group_done.resize(options_.groups);
  s->penalties.resize(K);
  if (options_.coverage_penalty > 0) {
    s->coverage.resize(K * positions_);
    s->next_coverage.resize(K * positions_);
  }
  s->chosen.reserve(K);
  s->extended.reserve(width_ * wanted_);
  // Each group begins with one beam: its others would say the same.
  for (int64_t slot = 0; slot < K; ++slot) {
    const bool live = slot % width_ == 0;
    if (live) s->scores[slot] = s->running[slot].rank = 0;
    choices[slot] = {};
    choices[slot].parent = slot;
    choices[slot].live = live;
  }
  sources_[source] = std::move(s);
}

void BeamSearch::advance(int64_t source, int64_t step, const Candidates* const* rows,
                         const double* const* weights, Choice* choices) {
  Source* s = sources_[source].get();
  if (options_.coverage_penalty > 0) cover(source, rows, weights, s);
  s->chosen.clear();
  for (int64_t group = 0; group < options_.groups; ++group) {
    extend(group, step, rows, s, choices);
  }
  if (options_.coverage_penalty > 0) move_coverage(s);
}

void BeamSearch::cover(int64_t source, const Candidates* const* rows, const double* const* weights,
                       Source* s) const {
  const int64_t length = lengths_ == nullptr ? positions_ : lengths_[source];
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    if (rows[slot] == nullptr) continue;
    double* coverage = s->coverage.data() + slot * positions_;
    double sum = 0;
    for (int64_t i = 0; i < length; ++i) {
      coverage[i] += weights[slot][i];
      if (coverage[i] < 1) sum += exact_log(std::max(coverage[i], kLeastShare));
    }
    s->penalties[slot] = rounded(options_.coverage_penalty * sum);
  }
}

void BeamSearch::move_coverage(Source* s) const {
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    if (s->scores[slot] == -kInfinity) continue;
    const double* from = s->coverage.data() + s->running[slot].slot * positions_;
    std::copy(from, from + positions_, s->next_coverage.data() + slot * positions_);
  }
  s->coverage.swap(s->next_coverage);
}

void BeamSearch::extend(int64_t group, int64_t step, const Candidates* const* rows, Source* s,
                        Choice* choices) const {
  const int64_t first = group * width_;
  Hypothesis* running = s->running.data() + first;
  Hypothesis* finished = s->finished.data() + first;
  double* scores = s->scores.data() + first;
  for (int64_t i = 0; i < width_; ++i) choices[first + i] = {};
  if (s->group_done[group]) return;
  sort_best(group, rows, s);
  // Where nothing at all can follow, hypotheses end as they are.
  if (s->extended.empty()) {
    for (int64_t i = 0; i < width_; ++i) insert(running[i], width_, finished);
  }
  // What ends counts if it is among the first k; what goes on are the first k of the others.
  const double length_norm = norm(step + 1);
  int64_t ranked = 0, going = 0;
  for (const Extended& e : s->extended) {
    const double rank = e.total / length_norm + s->penalties[e.slot];
    const Hypothesis hypothesis{step + 1, e.slot, e.token, e.log_prob, rank};
    if (ends(e.token)) {
      if (ranked < width_) insert(hypothesis, width_, finished);
    } else if (going < width_) {
      running[going] = hypothesis;
      scores[going] = e.total;
      s->chosen.push_back(e.token);
      ++going;
    }
    ++ranked;
  }
  for (int64_t i = going; i < width_; ++i) {
    running[i] = {};
    scores[i] = -kInfinity;
  }
  const bool last = step + 1 == options_.max_new_tokens;
  for (int64_t i = 0; last && i < going; ++i) insert(running[i], width_, finished);
  const bool done = last || is_done(group, step + 1, *s);
  s->group_done[group] = done;
  for (int64_t i = 0; i < going; ++i) {
    if (done) scores[i] = -kInfinity;
    choices[first + i] = {running[i].token, running[i].slot, running[i].log_prob, !done};
  }
}

void BeamSearch::sort_best(int64_t group, const Candidates* const* rows, Source* s) const {
  s->extended.clear();
  for (int64_t slot = group * width_; slot < (group + 1) * width_; ++slot) {
    if (rows[slot] == nullptr || s->scores[slot] == -kInfinity) continue;
    const Candidates& candidates = *rows[slot];
    for (int64_t i = 0; i < std::min(candidates.count, wanted_); ++i) {
      const int64_t token = candidates.tokens[i], place = s->extended.size();
      const double total = s->scores[slot] + candidates.scores[i];
      const auto before = std::count(s->chosen.begin(), s->chosen.end(), token);
      const double key = total - rounded(options_.diversity_penalty * before);
      s->extended.push_back({key, total, candidates.log_probs[i], slot, token, place});
    }
  }
  const size_t most = width_ * (1 + options_.eos.size());
  const auto better = [](const Extended& a, const Extended& b) {
    return a.key > b.key || (a.key == b.key && a.place < b.place);
  };
  const auto middle = s->extended.begin() + std::min(most, s->extended.size());
  std::partial_sort(s->extended.begin(), middle, s->extended.end(), better);
  s->extended.erase(middle, s->extended.end());
}

bool BeamSearch::is_done(int64_t group, int64_t length, const Source& s) const {
  const int64_t first = group * width_;
  const double worst = s.finished[first + width_ - 1].rank;
  bool full = worst > -kInfinity;  // k hypotheses
  bool any = false;
  for (int64_t slot = first; slot < first + width_; ++slot) {
    const double score = s.scores[slot];
    any |= score > -kInfinity;
    if (options_.early_stopping == DecodeOptions::EarlyStopping::kNo) {
      full = full && worst >= s.running[slot].rank;
    } else if (options_.early_stopping == DecodeOptions::EarlyStopping::kNever) {
      // Scores only fall, and coverage costs nothing at best.
      full = full && worst >= std::max(score / norm(length), score / longest_norm_);
    }
  }
  return full || !any;
}

bool BeamSearch::ends(int64_t token) const {
  return std::binary_search(options_.eos.begin(), options_.eos.end(), token);
}

double BeamSearch::norm(int64_t length) const {
  return std::pow(static_cast<double>(length), options_.length_penalty);
}

void BeamSearch::finish(int64_t source, Hypothesis* hypotheses) {
  std::vector<Hypothesis>& all = sources_[source]->finished;
  std::stable_sort(all.begin(), all.end(),
                   [](const Hypothesis& a, const Hypothesis& b) { return a.rank > b.rank; });
  std::copy_n(all.begin(), options_.results, hypotheses);
  sources_[source].reset();
}

}  // namespace seq2seq_ext::kernels::cpu::decode
