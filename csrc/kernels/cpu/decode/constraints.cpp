// SPDX-License-Identifier: MIT
#include "cpu/decode/constraints.h"

#include <algorithm>

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

void set_bit(uint32_t* bits, int64_t i) { bits[i / 32] |= uint32_t{1} << (i % 32); }

void sort_unique(std::vector<int64_t>* v) {
  std::sort(v->begin(), v->end());
  v->erase(std::unique(v->begin(), v->end()), v->end());
}

}  // namespace

Constraints::Constraints(const DecodeOptions& options, int64_t batch, int64_t num_words,
                         const int64_t* tokens)
    : options_(options), num_words_(num_words), tokens_(tokens) {
  needs_history_ = !options.phrases.empty() || options.no_repeat_ngram_size > 0 ||
                   options.repetition_penalty != 1;
  const bool own = options.shortlist != nullptr;
  const bool allowed = options.allowed != nullptr;
  const int64_t rows = own || (allowed && options.allowed_rows > 1) ? batch : 1;
  int64_t most = own ? 0 : num_words;
  for (int64_t row = 0; own && row < batch; ++row) {
    most = std::max(most, options.shortlist_starts[row + 1] - options.shortlist_starts[row]);
  }
  words32_ = (most + 31) / 32;
  if (allowed || !options.banned.empty()) {
    late_.assign(rows * words32_, 0);
    for (int64_t row = 0; row < rows; ++row) mark(row, num_words, late_.data() + row * words32_);
  }
  if (options.min_new_tokens > 0 && !options.eos.empty()) {
    early_ = late_;
    early_.resize(rows * words32_, 0);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t token : options.eos) {
        if (const int64_t word = word_of(row, token); word >= 0) {
          set_bit(early_.data() + row * words32_, word);
        }
      }
    }
  }
  any_ = needs_history_ || !late_.empty() || !early_.empty() || options.prefix != nullptr;
}

void RowConstraints::reserve(int64_t words) {
  also_banned.reserve(words);
  seen.reserve(words);
  seen_logits.reserve(words);
}

int64_t Constraints::room(int64_t steps) const {
  return needs_history_ ? steps + static_cast<int64_t>(options_.phrases.size()) : 0;
}

// What a row may never choose.
void Constraints::mark(int64_t row, int64_t num_words, uint32_t* late) {
  for (int64_t token : options_.banned) {
    if (const int64_t word = word_of(row, token); word >= 0) set_bit(late, word);
  }
  if (options_.allowed == nullptr) return;
  const uint8_t* allowed = options_.allowed + (options_.allowed_rows > 1 ? row * num_words : 0);
  if (options_.shortlist == nullptr) {
    for (int64_t v = 0; v < num_words; ++v) {
      if (!allowed[v]) set_bit(late, v);
    }
    return;
  }
  const int64_t first = options_.shortlist_starts[row], end = options_.shortlist_starts[row + 1];
  for (int64_t i = first; i < end; ++i) {
    if (!allowed[options_.shortlist[i]]) set_bit(late, i - first);
  }
}

int64_t Constraints::word_of(int64_t source, int64_t token) const {
  const int64_t *first = tokens_, *last = tokens_ + num_words_;
  if (options_.shortlist != nullptr) {
    first = options_.shortlist + options_.shortlist_starts[source];
    last = options_.shortlist + options_.shortlist_starts[source + 1];
  } else if (tokens_ == nullptr) {
    return token >= 0 && token < num_words_ ? token : -1;
  }
  const int64_t* found = std::lower_bound(first, last, token);
  return found != last && *found == token ? found - first : -1;
}

void Constraints::row(int64_t source, int64_t step, const int64_t* history,
                      RowConstraints* out) const {
  out->banned = nullptr;
  out->also_banned.clear();
  out->seen.clear();
  out->forced = -1;
  if (!any_) return;
  const auto add = [&](int64_t token, std::vector<int64_t>* words) {
    if (const int64_t word = word_of(source, token); word >= 0) words->push_back(word);
  };
  if (options_.repetition_penalty != 1) {
    for (int64_t t = 0; t < step; ++t) add(history[t], &out->seen);
    sort_unique(&out->seen);
  }
  if (options_.prefix != nullptr && step < options_.prefix_size) {
    const int64_t token = options_.prefix[source * options_.prefix_size + step];
    if (token >= 0) {
      out->forced = word_of(source, token);
      return;
    }
  }
  const auto& bits = step < options_.min_new_tokens && !early_.empty() ? early_ : late_;
  if (!bits.empty()) {
    const bool each = static_cast<int64_t>(bits.size()) > words32_;
    out->banned = bits.data() + (each ? source * words32_ : 0);
  }
  for (const std::vector<int64_t>& phrase : options_.phrases) {
    const int64_t before = static_cast<int64_t>(phrase.size()) - 1;
    if (before <= step && std::equal(phrase.begin(), phrase.end() - 1, history + step - before)) {
      add(phrase.back(), &out->also_banned);
    }
  }
  const int64_t ngram = options_.no_repeat_ngram_size;
  if (ngram > 0 && ngram <= step) {
    const int64_t* tail = history + step - (ngram - 1);
    for (const int64_t* last = history + ngram - 1; last < history + step; ++last) {
      if (std::equal(tail, history + step, last - (ngram - 1))) add(*last, &out->also_banned);
    }
  }
  if (!out->also_banned.empty()) sort_unique(&out->also_banned);
}

}  // namespace seq2seq_ext::kernels::cpu::decode
