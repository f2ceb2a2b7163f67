// SPDX-License-Identifier: MIT
#include "cpu/decode/picking.h"

#include <algorithm>
#include <cmath>

#include "cpu/decode/exact.h"

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

// How many candidates are asked for where top_p or min_p may leave in any number.
constexpr int64_t kSome = 256;

}  // namespace

Picking::Picking(const DecodeOptions& options, const DecodeSources& sources, int64_t num_words)
    : options_(options), num_words_(num_words), lengths_(sources.B * options.slots, 0) {}

int64_t Picking::wanted() const {
  switch (options_.mode) {
    case DecodeMode::kSample:
      if (options_.top_k > 0) return std::min(options_.top_k, num_words_);
      return options_.top_p == 1 && options_.min_p == 0 ? 0 : std::min(kSome, num_words_);
    case DecodeMode::kGiven:
      return 0;
    default:
      return 1;
  }
}

void Picking::begin(int64_t source, Choice* choices) {
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    lengths_[source * options_.slots + slot] = 0;
    choices[slot] = {};
    choices[slot].parent = slot;
    choices[slot].live = goes_on(source, -1, -1);
  }
}

void Picking::advance(int64_t source, int64_t step, const Candidates* const* rows,
                      const double* const*, Choice* choices) {
  const bool given = options_.mode == DecodeMode::kGiven;
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    choices[slot] = {};
    choices[slot].parent = slot;
    // Where every token is banned a row ends with what it has.
    if (rows[slot] == nullptr || rows[slot]->count == 0) continue;
    const Candidates& candidates = *rows[slot];
    const bool sampled = options_.mode == DecodeMode::kSample && !candidates.drawn;
    const int64_t i = sampled ? draw(source, slot, step, candidates) : 0;
    const int64_t token =
        given ? options_.given[source * options_.given_size + step] : candidates.tokens[i];
    ++lengths_[source * options_.slots + slot];
    choices[slot].token = token;
    choices[slot].log_prob = candidates.log_probs[i];
    choices[slot].live = goes_on(source, step, token);
  }
}

bool Picking::goes_on(int64_t source, int64_t step, int64_t token) const {
  if (options_.mode == DecodeMode::kGiven) {
    const int64_t* lengths = options_.given_lengths;
    return step + 1 < (lengths == nullptr ? options_.given_size : lengths[source]);
  }
  return step + 1 < options_.max_new_tokens &&
         !std::binary_search(options_.eos.begin(), options_.eos.end(), token);
}

int64_t Picking::draw(int64_t source, int64_t slot, int64_t step,
                      const Candidates& candidates) const {
  const int64_t id = options_.row_ids == nullptr ? source : options_.row_ids[source];
  const uint64_t row = static_cast<uint64_t>(id + (slot << 32));
  const int64_t count = truncated(candidates);
  int64_t best = 0;
  double most = -kInfinity;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t token = candidates.tokens[i];
    const double score = candidates.scores[i] / options_.temperature;
    const double value = score + exact_gumbel(options_.seed, row, step, token);
    if (value > most || (value == most && token < candidates.tokens[best])) {
      best = i;
      most = value;
    }
  }
  return best;
}

int64_t Picking::truncated(const Candidates& candidates) const {
  const bool limited = options_.top_k > 0;
  int64_t count = limited ? std::min(candidates.count, options_.top_k) : candidates.count;
  const double best = candidates.scores[0] / options_.temperature;
  const auto below = [&](int64_t i) { return candidates.scores[i] / options_.temperature - best; };
  if (options_.top_p < 1) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += exact_exp(below(i));
    if (!limited) total += candidates.rest;
    double before = exact_exp(below(0));
    int64_t kept = 1;
    for (; kept < count && before < options_.top_p * total; ++kept)
      before += exact_exp(below(kept));
    count = kept;
  }
  if (options_.min_p > 0) {
    const double lowest = std::log(options_.min_p);
    while (count > 1 && below(count - 1) < lowest) --count;
  }
  return count;
}

void Picking::finish(int64_t source, Hypothesis* hypotheses) {
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    hypotheses[slot] = {};
    hypotheses[slot].length = lengths_[source * options_.slots + slot];
    hypotheses[slot].slot = slot;
  }
}

}  // namespace seq2seq_ext::kernels::cpu::decode
