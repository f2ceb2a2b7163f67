// SPDX-License-Identifier: MIT
// A call of the loop: what it is about, and the device memory that lasts from its first step to its
// last.
#pragma once

#include <algorithm>
#include <vector>

#include "common/decode.h"
#include "cuda/decode_state.h"

namespace seq2seq_ext::kernels::cuda {

// By the parity of the step that reads it; that step writes the other.
template <class T>
struct DecodePair {
  T* of[2] = {};
};

class DecodeSetup {
 public:
  DecodeSetup(const DecodeModel& model, const DecodeSources& sources, const DecodeOptions& options,
              const Runtime& runtime);

  // Takes the memory and brings it to where the first step finds it.
  Status prepare();

  // -- sizes and questions -----------------------------------------------------------------------

  bool beam() const { return o.mode == DecodeMode::kBeam; }
  bool given() const { return o.mode == DecodeMode::kGiven; }
  bool lstm() const { return m.cell == Cell::kLstm; }
  bool attends() const { return m.context == DecodeContext::kAttention; }
  // The kernel that looks at the vocabulary draws from all of it. It knows words, whose tokens key
  // the noise, and divides by temperatures in the weights' dtype.
  bool draws_all() const {
    constexpr double kLeast = 1e-30;
    return o.mode == DecodeMode::kSample && o.top_k == 0 && o.top_p >= 1 && o.min_p <= 0 &&
           o.temperature >= kLeast && m.tokens == nullptr;
  }
  bool draws_some() const { return o.mode == DecodeMode::kSample && !draws_all(); }
  bool covers() const { return beam() && o.coverage_penalty != 0; }
  bool penalizes() const { return !given() && o.repetition_penalty != 1; }
  bool has_history() const {
    return !given() && (penalizes() || !o.phrases.empty() || o.no_repeat_ngram_size > 0);
  }
  bool constrains() const { return given() || has_history() || o.prefix != nullptr; }

  int64_t size() const { return size_of(m.dtype); }
  int64_t state_size() const { return m.dtype == DType::kFloat64 ? 8 : 4; }
  int64_t second_width() const {
    return m.context == DecodeContext::kEveryStep ? m.C : m.input_feeding ? m.P : 0;
  }
  int64_t inputs() const { return m.E + second_width(); }

  // -- what it holds -----------------------------------------------------------------------------

  const DecodeModel& m;
  const DecodeSources& sources;
  const DecodeOptions& o;
  const Runtime& runtime;

  DecodeState state{};
  DecodeConstraints constraints{};  // but for the state and the histories' places
  DecodePair<int> histories;
  DecodePair<double> coverage;
  double* norms = nullptr;  // of DecodeBeam
  std::vector<DecodePair<void>> hidden, cells;
  DecodePair<void> features;
  void *x = nullptr, *context = nullptr, *weights = nullptr;
  DecodeKept kept_weights{}, kept_hidden{}, kept_contexts{};  // without a trace: not wanted

 private:
  int64_t candidates() const;
  bool early_bans() const { return !given() && o.min_new_tokens > 0 && !o.eos.empty(); }

  template <class T>
  void take(T*& pointer, int64_t count, int64_t each = sizeof(T)) {
    pointer = static_cast<T*>(memory(count * each));
  }
  void take(void*& pointer, int64_t count, int64_t each) { pointer = memory(count * each); }
  template <class T>
  void take(DecodePair<T>& pair, int64_t count, int64_t each = sizeof(T)) {
    for (T*& pointer : pair.of) take(pointer, count, each);
  }
  void take(DecodePair<void>& pair, int64_t count, int64_t each) {
    for (void*& pointer : pair.of) take(pointer, count, each);
  }
  void* memory(int64_t bytes);

  void allocate();
  void allocate_beams();
  void allocate_bans();
  void allocate_history();
  void allocate_layers();
  void allocate_kept();
  Status set_bits();
  Status set_constraints();
  Status set_norms();
  Status set_states();

  uint32_t *ends_ = nullptr, *late_ = nullptr;
  int *phrases_ = nullptr, *phrase_ends_ = nullptr;
  bool failed_ = false;
};

}  // namespace seq2seq_ext::kernels::cuda
