// SPDX-License-Identifier: MIT
#include <cmath>
#include <vector>

#include "cuda/decode_setup.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

int64_t size_of_all(const std::vector<std::vector<int64_t>>& phrases) {
  int64_t size = 0;
  for (const auto& phrase : phrases) size += static_cast<int64_t>(phrase.size());
  return size;
}

}  // namespace

DecodeSetup::DecodeSetup(const DecodeModel& model, const DecodeSources& given_sources,
                         const DecodeOptions& options, const Runtime& given_runtime)
    : m(model), sources(given_sources), o(options), runtime(given_runtime) {
  DecodeState& s = state;
  s.B = sources.B;
  s.K = given() ? 1 : o.slots;
  s.rows = s.B * s.K;
  s.V = m.V;
  s.num_tokens = m.num_tokens;
  s.token_of_word = m.tokens;
  s.dtype = m.dtype;
  s.max_new_tokens = given() ? o.given_size : o.max_new_tokens;
  s.min_new_tokens = o.min_new_tokens;
  s.words = (m.V + 31) / 32;
  s.groups = beam() ? o.groups : 1;
  s.width = s.K / s.groups;
  s.most = s.width * (1 + static_cast<int64_t>(o.eos.size()));
  s.C = candidates();
}

// Of a beam so many as its group takes, and those that other groups' beams may move behind.
int64_t DecodeSetup::candidates() const {
  if (beam()) return std::min(state.most + state.K - state.width, m.V);
  if (!draws_some()) return 1;
  return o.top_k > 0 ? std::min(o.top_k, m.V) : m.V;
}

Status DecodeSetup::prepare() {
  allocate();
  if (failed_) return Status::invalid("decode: out of device memory");
  Status status = decode_begin({state, o.start_token, o.seed, o.row_ids}, runtime);
  if (status) status = set_bits();
  if (status) status = set_constraints();
  if (status && beam()) status = set_norms();
  return status ? set_states() : status;
}

// -- memory --------------------------------------------------------------------------------------

void* DecodeSetup::memory(int64_t bytes) {
  void* const found = runtime.allocate(std::max<int64_t>(bytes, 1), runtime.context);
  failed_ |= found == nullptr;
  return found;
}

void DecodeSetup::allocate() {
  DecodeState& s = state;
  const int64_t rows = s.rows, all = rows * s.max_new_tokens;
  take(s.step, 1);
  take(s.live, 1);
  take(s.summary, 1);
  take(s.tokens, rows);
  take(s.undefined, rows);
  take(s.source, rows);
  take(ends_, s.words);
  s.ends = ends_;
  take(s.log_probs, rows * s.C, state_size());
  s.scores_of_words = s.log_probs;
  if (penalizes() && (beam() || draws_some())) {
    take(s.scores_of_words, rows * s.C, state_size());
  }
  take(s.indices, rows * s.C);
  take(s.trace_words, all);
  take(s.trace_log_probs, all, state_size());
  if (beam()) {
    allocate_beams();
  } else {
    take(s.alive, rows);
    take(s.lengths, rows);
  }
  if (o.mode == DecodeMode::kSample) {
    take(s.seed, 1);
    take(s.row_ids, rows);
  }
  if (draws_some() && o.top_p < 1) take(s.weights, rows * s.C);
  if (given()) {
    s.given = o.given;
    s.given_lengths = o.given_lengths;
  } else {
    allocate_bans();
  }
  if (constrains()) allocate_history();
  allocate_layers();
  allocate_kept();
}

void DecodeSetup::allocate_beams() {
  DecodeState& s = state;
  const int64_t rows = s.rows;
  take(s.trace_parents, rows * s.max_new_tokens);
  take(s.from, rows);
  take(s.scores, rows);
  take(s.running, rows);
  take(s.finished, rows);
  take(s.group_done, s.B * s.groups);
  take(s.done, s.B);
  take(s.keys, rows * s.C);
  take(s.extended, s.B * s.most);
  take(norms, s.max_new_tokens + 1);
  if (!covers()) return;
  take(s.coverage, rows);
  take(coverage, rows * sources.S);
}

void DecodeSetup::allocate_bans() {
  DecodeState& s = state;
  const bool late = o.allowed != nullptr || !o.banned.empty();
  if (!late && !early_bans()) return;
  s.ban_rows = o.allowed != nullptr && o.allowed_rows > 1 ? s.B : 1;
  take(s.banned, s.ban_rows * s.words);
  if (!early_bans()) return;
  take(late_, s.ban_rows * s.words);
  s.late = late_;
}

void DecodeSetup::allocate_history() {
  take(constraints.banned, state.rows * state.words);
  if (penalizes()) take(constraints.seen, state.rows * state.words);
  if (!has_history()) return;
  for (int*& history : histories.of) {
    history = histories.of[0];  // rows that stay in their places
    if (history == nullptr || beam()) take(history, state.rows * state.max_new_tokens);
  }
  if (o.phrases.empty()) return;
  take(phrases_, size_of_all(o.phrases));
  take(phrase_ends_, static_cast<int64_t>(o.phrases.size()));
}

void DecodeSetup::allocate_layers() {
  const int64_t rows = state.rows;
  hidden.resize(m.L);
  cells.resize(m.L);
  for (int64_t l = 0; l < m.L; ++l) {
    take(hidden[l], rows * m.P, size());
    if (lstm()) take(cells[l], rows * m.H, state_size());
  }
  take(x, rows * inputs(), size());
  if (!attends()) return;
  take(features, rows * m.P, size());
  take(context, rows * m.C, size());
  take(weights, rows * sources.S, size());
}

void DecodeSetup::allocate_kept() {
  const auto keep = [&](DecodeKept& kept, const void* of_rows, int64_t width) {
    kept.rows = of_rows;
    kept.width = width * size();
    take(kept.trace, state.rows * state.max_new_tokens, kept.width);
  };
  if (o.attentions && attends()) keep(kept_weights, weights, sources.S);
  if (!o.states) return;
  keep(kept_hidden, nullptr, m.P);  // which goes back and forth
  if (attends()) keep(kept_contexts, context, m.C);
}

// -- what the first step finds -------------------------------------------------------------------

Status DecodeSetup::set_bits() {
  const DecodeState& s = state;
  const auto set = [&](uint32_t* bits, int64_t rows, const std::vector<int64_t>& tokens, bool fresh,
                       const uint8_t* allowed) {
    return decode_set_bits(s, bits, rows, tokens.data(), static_cast<int64_t>(tokens.size()), fresh,
                           allowed, runtime);
  };
  Status status = set(ends_, 1, o.eos, true, nullptr);
  if (status && s.banned != nullptr) status = set(s.banned, s.ban_rows, o.banned, true, o.allowed);
  if (!status || late_ == nullptr) return status;
  status = set(late_, s.ban_rows, o.banned, true, o.allowed);
  return status ? set(s.banned, s.ban_rows, o.eos, false, nullptr) : status;
}

Status DecodeSetup::set_constraints() {
  DecodeConstraints& c = constraints;
  if (!constrains()) return Status::ok();
  c.forced = given() ? o.given : o.prefix;
  c.forced_size = given() ? o.given_size : o.prefix_size;
  const int64_t width = state.words * static_cast<int64_t>(sizeof(uint32_t));
  for (uint32_t* bits : {c.banned, c.seen}) {  // of rows that are never live they stay such
    if (bits == nullptr) continue;
    const Status status = decode_spread(bits, nullptr, state.rows, 1, width, runtime);
    if (!status) return status;
  }
  c.ngram = given() ? 0 : o.no_repeat_ngram_size;
  if (phrases_ == nullptr) return Status::ok();
  c.phrases = phrases_;
  c.phrase_ends = phrase_ends_;
  c.num_phrases = static_cast<int64_t>(o.phrases.size());
  std::vector<int64_t> tokens, ends;
  for (const std::vector<int64_t>& phrase : o.phrases) {
    tokens.insert(tokens.end(), phrase.begin(), phrase.end());
    ends.push_back(static_cast<int64_t>(tokens.size()));
  }
  const auto store = [&](int* to, const std::vector<int64_t>& from, bool words) {
    return decode_store(state, to, from.data(), static_cast<int64_t>(from.size()), words, runtime);
  };
  const Status status = store(phrases_, tokens, true);
  return status ? store(phrase_ends_, ends, false) : status;
}

Status DecodeSetup::set_norms() {
  std::vector<double> all(state.max_new_tokens + 1);
  for (size_t length = 1; length < all.size(); ++length) {
    all[length] = std::pow(static_cast<double>(length), o.length_penalty);
  }
  return decode_store(norms, all.data(), static_cast<int64_t>(all.size()), runtime);
}

Status DecodeSetup::set_states() {
  const int64_t rows = state.rows, K = state.K;
  Status status = Status::ok();
  for (int64_t l = 0; status && l < m.L; ++l) {
    status = decode_spread(hidden[l].of[0], sources.hidden[l], rows, K, m.P * size(), runtime);
    if (!status || !lstm()) continue;
    status = decode_spread(cells[l].of[0], sources.cells[l], rows, K, m.H * state_size(), runtime);
  }
  if (!status || !m.input_feeding) return status;
  return decode_spread(features.of[0], nullptr, rows, 1, m.P * size(), runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
