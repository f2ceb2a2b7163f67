// SPDX-License-Identifier: MIT
#include "cpu/decode/plan.h"

#include <algorithm>

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

// Rows in flight at most. More would not save passes over the weights' time any more, and want more
// work memory.
constexpr int64_t kMostRows = 256;
constexpr int64_t kMostLogits = int64_t{16} << 20;  // of rows that want all of theirs
constexpr int64_t kMostKept = 1024;     // best words that a row keeps on the way; more are selected
constexpr int64_t kMostScreened = 128;  // of more candidates too many are computed anew
constexpr double kLeastDrawn = 1e-30;   // a temperature: below, float32 logits over it overflow

}  // namespace

Plan::Plan(const std::vector<DecodeMember>& members, const DecodeOptions& given)
    : model(*members[0].model),
      sources(*members[0].sources),
      repeats(given.mode == DecodeMode::kSample && given.on_step == nullptr ? given.slots : 1),
      options(given),
      units(sources.B * repeats),
      words(most_words(model, sources, given)),
      task(find_task(members.size() == 1)),
      alone_(members.size() == 1) {
  if (repeats == 1) return;
  options.slots = options.results = 1;
  row_ids_.resize(units);
  for (int64_t unit = 0; unit < units; ++unit) {
    const int64_t b = source(unit), id = given.row_ids == nullptr ? b : given.row_ids[b];
    row_ids_[unit] = id + ((unit % repeats) << 32);
  }
  options.row_ids = row_ids_.data();
}

int64_t Plan::most_words(const DecodeModel& model, const DecodeSources& sources,
                         const DecodeOptions& options) {
  if (options.shortlist == nullptr) return model.V;
  int64_t most = 1;
  for (int64_t b = 0; b < sources.B; ++b) {
    most = std::max(most, options.shortlist_starts[b + 1] - options.shortlist_starts[b]);
  }
  return most;
}

VocabTask Plan::find_task(bool alone) const {
  if (options.mode == DecodeMode::kGiven) return VocabTask::kForced;
  if (options.mode != DecodeMode::kSample) return VocabTask::kBest;
  if (options.top_k > 0) {
    return options.top_k <= kMostKept ? VocabTask::kBest : VocabTask::kNucleus;
  }
  // Noise is keyed by tokens; the kernel that draws knows words, of one model.
  const bool same = alone && model.tokens == nullptr && options.shortlist == nullptr;
  const bool every = options.top_p >= 1 && options.min_p <= 0;
  const bool fits = options.temperature >= kLeastDrawn;
  return every && fits && same ? VocabTask::kDraw : VocabTask::kNucleus;
}

void Plan::set_candidates(int64_t wanted) {
  candidates = std::clamp<int64_t>(wanted, 1, words);
  const int64_t slots = options.slots, all = std::max<int64_t>(units, 1) * slots;
  rows = all;
  if (options.on_step != nullptr) return;
  rows = kMostRows;
  if (task == VocabTask::kNucleus || options.make_scores || !alone_)
    rows = std::min(rows, kMostLogits / words);
  if (task == VocabTask::kBest) rows = std::min(rows, (int64_t{4} << 20) / candidates);
  rows = std::min(std::max(rows / slots, int64_t{1}) * slots, all);
}

WordList Plan::list(int64_t unit) const {
  if (options.shortlist == nullptr) return {};
  const int64_t* starts = options.shortlist_starts + source(unit);
  return {options.shortlist + starts[0], starts[1] - starts[0]};
}

bool Plan::has_screen() const {
  return alone_ && model.screen.panels != nullptr && model.tokens == nullptr &&
         options.shortlist == nullptr;
}

bool Plan::screened() const {
  const bool few = task == VocabTask::kBest && candidates <= kMostScreened;
  return has_screen() && (few || task == VocabTask::kForced) && !options.make_scores;
}

bool Plan::normalized() const { return has_screen() && !screened(); }

VocabPartParams Plan::vocab(const DecodeModel& model) const {
  static const WordList kOwn{};  // until there are rows
  VocabPartParams v{};
  v.dtype = model.dtype;
  v.task = task;
  v.B = rows;
  v.H = model.P;
  v.V = words;
  v.K = task == VocabTask::kNucleus ? options.top_k : candidates;
  v.weight = model.output_weight;
  v.bias = model.output_bias;
  v.tokens = model.tokens;
  v.temperature = options.temperature;
  v.top_p = options.top_p;
  v.min_p = options.min_p;
  v.repetition_penalty = options.repetition_penalty;
  v.screen = model.screen;
  v.lists = options.shortlist != nullptr ? &kOwn : nullptr;
  v.all = static_cast<bool>(options.make_scores);
  return v;
}

}  // namespace seq2seq_ext::kernels::cpu::decode
