// SPDX-License-Identifier: MIT
#include "cpu/decode/nucleus.h"

#include <algorithm>
#include <cmath>

#include "cpu/decode/parts.h"

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

// The strategy decides to the bit; here a little more is listed than it can leave in.
constexpr double kMargin = 1e-9;
constexpr int64_t kFirstWords = 256;

// As results are. GCC 12 would make vectors of a pair of these, and leave the rounding out.
template <class T>
double rounded_to(double x) {
  T y = static_cast<T>(x);
  asm("" : "+m"(y));
  return y;
}

}  // namespace

template <class T>
Scored scored(int64_t word, T value, T max, double log_sum, const RowConstraints* constraints,
              double repetition_penalty) {
  const auto log_prob = [&](double logit) { return (logit - double(max)) - log_sum; };
  if (constraints != nullptr && !constraints->seen.empty()) {
    const std::vector<int64_t>& seen = constraints->seen;
    const auto found = std::lower_bound(seen.begin(), seen.end(), word);
    if (found != seen.end() && *found == word) {
      // A forced word's logit comes as it was.
      const double plain =
          constraints->forced >= 0 ? value : constraints->seen_logits[found - seen.begin()];
      const double penalized = penalize(plain, repetition_penalty);
      return {rounded_to<T>(log_prob(penalized)), rounded_to<T>(log_prob(plain))};
    }
  }
  const double both = rounded_to<T>(log_prob(value));
  return {both, both};
}

void Nucleus::reserve(int64_t V) {
  words_.reserve(V);
  tokens_.reserve(V);
  scores_.reserve(V);
  log_probs_.reserve(V);
}

template <class T>
void Nucleus::list(const T* logits, int64_t V, const int64_t* tokens, const VocabPartParams& params,
                   const RowConstraints* constraints, T max, double log_sum, Candidates* out,
                   const T* log_probs) {
  words_.clear();
  T top = -std::numeric_limits<T>::infinity();
  for (int64_t v = 0; v < V; ++v) top = std::max(top, logits[v]);
  if (top == -std::numeric_limits<T>::infinity()) return;  // nothing is allowed
  const double lowest = params.min_p > 0 ? std::log(params.min_p) - kMargin : -kInfinity;
  double total = 0;
  for (int64_t v = 0; v < V; ++v) {
    if (logits[v] == -std::numeric_limits<T>::infinity()) continue;
    const double key = (double(logits[v]) - double(top)) / params.temperature;
    if (params.top_p < 1) total += std::exp(key);
    if (key >= lowest || params.top_p < 1) words_.push_back({key, v});
  }
  const auto better = [](const Word& a, const Word& b) {
    return a.key > b.key || (a.key == b.key && a.word < b.word);
  };
  if (params.K > 0 && params.K < static_cast<int64_t>(words_.size())) {  // top_k
    std::nth_element(words_.begin(), words_.begin() + params.K, words_.end(), better);
    words_.resize(params.K);
  }
  const int64_t all = static_cast<int64_t>(words_.size());
  // Best first, as many as hold top_p of all; of the top_k all.
  const bool some = params.top_p < 1 && params.K == 0;
  int64_t sorted = 0;
  double mass = 0;
  for (int64_t next = some ? std::min(all, kFirstWords) : all; sorted < all;
       next = std::min(all, 4 * next)) {
    if (next < all) {
      std::nth_element(words_.begin() + sorted, words_.begin() + next, words_.end(), better);
    }
    std::sort(words_.begin() + sorted, words_.begin() + next, better);
    for (; sorted < next; ++sorted) mass += std::exp(words_[sorted].key);
    if (some && mass >= params.top_p * total * (1 + kMargin)) break;
  }
  tokens_.resize(sorted);
  scores_.resize(sorted);
  log_probs_.resize(sorted);
  for (int64_t i = 0; i < sorted; ++i) {
    const int64_t word = words_[i].word;
    const Scored s = log_probs != nullptr ? Scored{logits[word], log_probs[word]}
                                          : scored<T>(word, logits[word], max, log_sum, constraints,
                                                      params.repetition_penalty);
    tokens_[i] = tokens == nullptr ? word : tokens[word];
    scores_[i] = s.score;
    log_probs_[i] = s.log_prob;
  }
  double rest = 0;
  for (int64_t i = sorted; i < all; ++i) rest += std::exp(words_[i].key);
  *out = {true, false, sorted, tokens_.data(), scores_.data(), log_probs_.data(), rest};
}

#define SEQ2SEQ_EXT_NUCLEUS(T)                                                              \
  template Scored scored<T>(int64_t, T, T, double, const RowConstraints*, double);          \
  template void Nucleus::list<T>(const T*, int64_t, const int64_t*, const VocabPartParams&, \
                                 const RowConstraints*, T, double, Candidates*, const T*);
SEQ2SEQ_EXT_NUCLEUS(float)
SEQ2SEQ_EXT_NUCLEUS(double)

}  // namespace seq2seq_ext::kernels::cpu::decode
