// SPDX-License-Identifier: MIT
#include "cpu/decode/trace.h"

#include <algorithm>

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

template <class Values>
void free(Values& values) {
  Values().swap(values);
}

}  // namespace

void Trace::begin(int64_t slots, int64_t steps, bool histories, int64_t extras,
                  int64_t score_bytes) {
  slots_ = slots;
  histories_ = histories;
  width_ = extras;
  score_bytes_ = score_bytes;
  choices_.reserve((1 + steps) * slots);
  choices_.resize(slots);
  history_size_ = histories ? std::max<int64_t>(steps, 1) : 0;
  for (auto& tokens : history_) tokens.reset(new int64_t[slots * history_size_]);
  extras_.reserve((1 + steps) * slots * extras);
  extras_.resize(slots * extras);
  scores_.resize(slots * score_bytes);
}

Choice* Trace::next() {
  choices_.resize((step_ + 2) * slots_);
  return choices_.data() + (step_ + 1) * slots_;
}

void Trace::advance() {
  ++step_;
  extras_.resize((step_ + 1) * slots_ * width_);
  scores_.resize((step_ + 1) * slots_ * score_bytes_);
  if (!histories_) return;
  if (step_ > history_size_) {  // longer rows, the tokens of each moved to its new place
    const int64_t size = 2 * history_size_;
    for (auto& tokens : history_) {
      std::unique_ptr<int64_t[]> longer(new int64_t[slots_ * size]);
      for (int64_t slot = 0; slot < slots_; ++slot) {
        std::copy_n(tokens.get() + slot * history_size_, history_size_, longer.get() + slot * size);
      }
      tokens = std::move(longer);
    }
    history_size_ = size;
  }
  const int64_t* before = history_[(step_ - 1) % 2].get();
  int64_t* now = history_[step_ % 2].get();
  for (int64_t slot = 0; slot < slots_; ++slot) {
    const Choice& choice = last()[slot];
    if (!choice.live) continue;
    std::copy_n(before + choice.parent * history_size_, step_ - 1, now + slot * history_size_);
    now[slot * history_size_ + step_ - 1] = choice.token;
  }
}

const int64_t* Trace::history(int64_t slot) const {
  return histories_ ? history_[step_ % 2].get() + slot * history_size_ : nullptr;
}

double* Trace::extras(int64_t slot) { return extras_.data() + (step_ * slots_ + slot) * width_; }

char* Trace::scores(int64_t slot) {
  return scores_.data() + (step_ * slots_ + slot) * score_bytes_;
}

void Trace::note_undefined(int64_t slot) {
  if (undefined_step_ >= 0 && slot >= undefined_slot_) return;
  undefined_step_ = step_;
  undefined_slot_ = slot;
}

void Trace::follow(const std::vector<Hypothesis>& found, bool beam) {
  for (const Hypothesis& hypothesis : found) {
    const int64_t length = hypothesis.length;
    Row row;
    row.rank = hypothesis.rank;
    row.tokens.resize(length);
    row.log_probs.resize(length);
    row.extras.resize(length * width_);
    row.scores.resize(length * score_bytes_);
    int64_t slot = hypothesis.slot;
    for (int64_t t = length - 1; t >= 0; --t) {
      // Beam search: of the last token the slot that it continues is told, of the others the slot
      // that they are in.
      const bool told = beam && t == length - 1;
      const Choice& choice = choices_[(t + 1) * slots_ + slot];
      row.tokens[t] = told ? hypothesis.token : choice.token;
      row.log_probs[t] = told ? hypothesis.log_prob : choice.log_prob;
      if (!told) slot = choice.parent;
      std::copy_n(extras_.data() + (t * slots_ + slot) * width_, width_,
                  row.extras.data() + t * width_);
      std::copy_n(scores_.data() + (t * slots_ + slot) * score_bytes_, score_bytes_,
                  row.scores.data() + t * score_bytes_);
    }
    rows_.push_back(std::move(row));
  }
}

void Trace::release() {
  free(choices_);
  for (auto& tokens : history_) tokens.reset();
  free(extras_);
  free(scores_);
}

void assemble(std::vector<Trace>& traces, int64_t results, const Kept& kept,
              const std::function<void*(int64_t T)>& make_scores, DecodeResult* result) {
  const int64_t B = static_cast<int64_t>(traces.size()), R = B * results;
  const auto [S, P, C, score_bytes] = kept;
  DecodeResult& out = *result;
  out = {};
  for (int64_t b = 0; b < B; ++b) {
    if (traces[b].undefined_step() >= 0 && out.undefined_source < 0) {
      out.undefined_source = b;
      out.undefined_step = traces[b].undefined_step();
    }
    for (const Trace::Row& row : traces[b].rows()) {
      out.T = std::max(out.T, static_cast<int64_t>(row.tokens.size()));
    }
  }
  out.lengths.resize(R);
  out.ranks.resize(R);
  out.tokens.resize(R * out.T);
  out.log_probs.resize(R * out.T);
  out.attentions.resize(R * out.T * S);
  out.hidden.resize(R * out.T * P);
  out.contexts.resize(R * out.T * C);
  const int64_t row_bytes = out.T * score_bytes;
  char* const scores = make_scores ? static_cast<char*>(make_scores(out.T)) : nullptr;
  for (int64_t r = 0; r < R; ++r) {
    Trace::Row& row = traces[r / results].rows()[r % results];
    out.lengths[r] = static_cast<int64_t>(row.tokens.size());
    out.ranks[r] = row.rank;
    std::copy(row.tokens.begin(), row.tokens.end(), out.tokens.begin() + r * out.T);
    std::copy(row.log_probs.begin(), row.log_probs.end(), out.log_probs.begin() + r * out.T);
    for (int64_t t = 0; t < out.lengths[r]; ++t) {
      const double* from = row.extras.data() + t * (S + P + C);
      const int64_t at = r * out.T + t;
      std::copy_n(from, S, out.attentions.data() + at * S);
      std::copy_n(from + S, P, out.hidden.data() + at * P);
      std::copy_n(from + S + P, C, out.contexts.data() + at * C);
    }
    if (scores == nullptr) continue;
    char* const end = std::copy(row.scores.begin(), row.scores.end(), scores + r * row_bytes);
    std::fill(end, scores + (r + 1) * row_bytes, char{0});
    free(row.scores);
  }
}

}  // namespace seq2seq_ext::kernels::cpu::decode
