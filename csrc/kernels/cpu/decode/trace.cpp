// SPDX-License-Identifier: MIT
#include "cpu/decode/trace.h"

#include <algorithm>

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

constexpr int64_t kFirstSteps = 32;  // room is made for so many, then for twice as many

}  // namespace

void Trace::begin(int64_t slots, bool histories, bool attentions, int64_t positions) {
  slots_ = slots;
  histories_ = histories;
  attentions_ = attentions;
  positions_ = positions;
  choices_.reserve((1 + kFirstSteps) * slots);
  choices_.resize(slots);
  history_size_ = histories ? kFirstSteps : 0;
  for (auto& tokens : history_) tokens.resize(slots * history_size_);
  if (attentions) weights_.resize(slots * positions);
}

Choice* Trace::next() {
  choices_.resize((step_ + 2) * slots_);
  return choices_.data() + (step_ + 1) * slots_;
}

void Trace::advance() {
  ++step_;
  if (attentions_) weights_.resize((step_ + 1) * slots_ * positions_);
  if (!histories_) return;
  if (step_ > history_size_) {  // longer rows, the tokens of each moved to its new place
    const int64_t size = 2 * history_size_;
    for (auto& tokens : history_) {
      tokens.resize(slots_ * size);
      for (int64_t slot = slots_ - 1; slot > 0; --slot) {
        std::copy_backward(tokens.begin() + slot * history_size_,
                           tokens.begin() + (slot + 1) * history_size_,
                           tokens.begin() + slot * size + history_size_);
      }
    }
    history_size_ = size;
  }
  const int64_t* before = history_[(step_ - 1) % 2].data();
  int64_t* now = history_[step_ % 2].data();
  for (int64_t slot = 0; slot < slots_; ++slot) {
    const Choice& choice = last()[slot];
    if (!choice.live) continue;
    std::copy_n(before + choice.parent * history_size_, step_ - 1, now + slot * history_size_);
    now[slot * history_size_ + step_ - 1] = choice.token;
  }
}

const int64_t* Trace::history(int64_t slot) const {
  return histories_ ? history_[step_ % 2].data() + slot * history_size_ : nullptr;
}

double* Trace::attention(int64_t slot) {
  return weights_.data() + (step_ * slots_ + slot) * positions_;
}

void Trace::follow(const std::vector<Hypothesis>& found, bool beam) {
  for (const Hypothesis& hypothesis : found) {
    const int64_t length = hypothesis.length;
    Row row;
    row.rank = hypothesis.rank;
    row.tokens.resize(length);
    row.log_probs.resize(length);
    if (attentions_) row.attentions.resize(length * positions_);
    int64_t slot = hypothesis.slot;
    for (int64_t t = length - 1; t >= 0; --t) {
      // Beam search: of the last token the slot that it continues is told, of the others the slot
      // that they are in.
      const bool told = beam && t == length - 1;
      const Choice& choice = choices_[(t + 1) * slots_ + slot];
      row.tokens[t] = told ? hypothesis.token : choice.token;
      row.log_probs[t] = told ? hypothesis.log_prob : choice.log_prob;
      if (!told) slot = choice.parent;
      if (attentions_) {
        std::copy_n(weights_.data() + (t * slots_ + slot) * positions_, positions_,
                    row.attentions.data() + t * positions_);
      }
    }
    rows_.push_back(std::move(row));
  }
}

void Trace::release() {
  const auto free = [](auto& values) { std::remove_reference_t<decltype(values)>().swap(values); };
  free(choices_);
  free(history_[0]);
  free(history_[1]);
  free(weights_);
}

}  // namespace seq2seq_ext::kernels::cpu::decode
