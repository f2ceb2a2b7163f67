// SPDX-License-Identifier: MIT
// The contract of whole-sequence decoding: what a caller hands over, and what it gets back. What
// the options mean, and in which order they act, is written down in
// seq2seq_ext/generation/__init__.py.
//
// Legend, beside that of params.h: L layers, E embedding, K slots of a source (beams or samples), R
// results. "token": a vocabulary id; "word": a row of the output layer, which is the same thing
// unless there is a shortlist, whose words are counted from 0.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "common/params.h"

namespace seq2seq_ext::kernels {

// An int8 copy of the output layer (cpu/vocab_screen.h), of V words rounded up to a multiple of 96
// and P to one of 4, filled up with zeros. w = scale * q + r; each number at least as large as
// said.
struct DecodeScreen {
  const uint8_t* panels = nullptr;  // (V / 16, P / 4, 16, 4): q + 128; null: there is none
  const float* scale = nullptr;     // (V), and so below
  const float* residual = nullptr;  // |r|, and what rounding may add to a logit, over |x|
  const float* norm = nullptr;      // scale * |q|
  const float* slack = nullptr;     // what rounding may add to a logit besides
  const float* bias = nullptr;
};
constexpr int64_t kScreenWords = 96, kScreenDepth = 4;

// Where the source's context c enters (seq2seq_ext.nn.Decoder).
enum class DecodeContext : int { kInitialState, kEveryStep, kAttention };

// Weights in panels (cpu/panels.h), which are then what is read; null: there are none.
struct DecodePanels {
  const void* ih = nullptr;
  const void* hh = nullptr;
  const void* hr = nullptr;
};

// One step: x = [embedding of the last token; c or the last attentional vector]; s = the layers'
// last state; with attention c = attention(s), features = tanh(combine_ih @ c + combine_hh @ s),
// else features = s; logits = output_weight @ features + output_bias.
struct DecodeModel {
  Cell cell;
  DType dtype;         // of every weight
  int64_t L, E, H, V;  // V: words, the rows of output_weight
  int64_t P;           // of s and features: H, or the LSTM's proj_size
  DecodeContext context;
  bool input_feeding;              // with kAttention only
  int64_t num_tokens;              // rows of `embedding`
  const void* embedding;           // (num_tokens, E)
  const RecurrentWeights* layers;  // (L); the first reads E, + C with kEveryStep, + P with feeding
  int64_t A = 0, C = 0;            // attention and context size
  AttentionScore score = AttentionScore::kDot;
  double scale = 1;
  const void* w_query = nullptr;      // (A, P) or null, as in AttentionStepParams
  const void* v = nullptr;            // (A); kAdditive only
  const void* combine_ih = nullptr;   // (P, C)
  const void* combine_hh = nullptr;   // (P, P)
  const void* output_weight;          // (V, P)
  const void* output_bias = nullptr;  // (V)
  const int64_t* tokens = nullptr;    // (V) ascending: the token of each word; null: the same
  DecodeScreen screen;                // float32 and bfloat16 only
  // CPU only: the weights again in panels. Of all layers and of combine_*, or of none; without
  // those of the output layer these are packed for the call, where they are wanted.
  const DecodePanels* layer_panels = nullptr;  // (L)
  DecodePanels combine_panels;
  const void* output_panels = nullptr;
};

// The encoded sentences: B of them, S positions at most.
struct DecodeSources {
  int64_t B, S;
  const int64_t* lengths = nullptr;    // (B), each in [0, S]; null: all S
  const void* keys = nullptr;          // (B, S, A) contiguous, kAttention
  const void* values = nullptr;        // (B, S, C) contiguous, kAttention
  const void* context = nullptr;       // (B, C) contiguous, kEveryStep
  const void* const* hidden;           // (L) pointers to (B, P)
  const void* const* cells = nullptr;  // (L) pointers to (B, H) state; LSTM only
};

// One of several models that decode as one. They share words, tokens, B, S and lengths. CPU only.
struct DecodeMember {
  const DecodeModel* model;
  const DecodeSources* sources;
};

enum class DecodeMode : int { kGreedy, kSample, kBeam, kGiven };

// One step of all sources.
struct DecodeStep {
  int64_t step;
  const int64_t* tokens;    // (B, K); -1 where a slot had ended before
  const int64_t* parents;   // (B, K): the slot of the step before that each continues
  const double* log_probs;  // (B, K): the model's
  const uint8_t* done;      // (B, K): no further token comes
};

struct DecodeOptions {
  DecodeMode mode = DecodeMode::kGreedy;
  int64_t slots = 1;    // K: beams or samples of a source
  int64_t results = 1;  // of a source: kBeam: the n best; else K
  int64_t max_new_tokens = 1, min_new_tokens = 0;
  int64_t start_token = 0;
  std::vector<int64_t> eos;   // ascending
  bool mean_of_logs = false;  // of several models: of log-probabilities, not of probabilities

  // Bans and penalties.
  std::vector<int64_t> banned;                // ascending tokens that no row may choose
  std::vector<std::vector<int64_t>> phrases;  // of two tokens or more, that no row may complete
  int64_t no_repeat_ngram_size = 0;           // 0: off
  double repetition_penalty = 1;              // 1: off
  const uint8_t* allowed = nullptr;           // (allowed_rows, V) of words, 0 or 1; null: all
  int64_t allowed_rows = 0;                   // 1 or B
  // Tokens of each source's own, source by source, ascending, none without; V, and the words of
  // `allowed`, are then all tokens. null: all words. CPU only.
  const int64_t* shortlist = nullptr;
  const int64_t* shortlist_starts = nullptr;  // (B + 1)
  const int64_t* prefix = nullptr;  // (B, prefix_size), -1 behind a row's last; null: none
  int64_t prefix_size = 0;

  // kSample.
  double temperature = 1, top_p = 1, min_p = 0;
  int64_t top_k = 0;  // 0: all
  uint64_t seed = 0;
  const int64_t* row_ids = nullptr;  // (B): what a source's draws are keyed by

  // kBeam.
  enum class EarlyStopping : int { kNo, kYes, kNever } early_stopping = EarlyStopping::kNo;
  int64_t groups = 1;
  double length_penalty = 1, coverage_penalty = 0, diversity_penalty = 0;

  // kGiven: the tokens are told; scores are asked for.
  const int64_t* given = nullptr;          // (B, given_size)
  const int64_t* given_lengths = nullptr;  // (B), each in [0, given_size]
  int64_t given_size = 0;

  bool attentions = false;  // kAttention only: keep the weights
  bool states = false;      // keep s_t and, with kAttention, c_t

  // Where (R, T, num_tokens) state go: each step's log-probabilities, -inf where banned, 0 past a
  // row's length. Empty: they are not wanted. CPU only.
  std::function<void*(int64_t T)> make_scores;

  // Told of each step by one thread while the others wait; all sources are in flight together then.
  // Returns whether to go on.
  bool (*on_step)(const DecodeStep& step, void* context) = nullptr;
  void* on_step_context = nullptr;

  // Asked by the calling thread, between steps and not often, whether to go on. CPU only.
  bool (*go_on)(void* context) = nullptr;
  void* go_on_context = nullptr;
};

// R = B * results rows, a source's rows together; T is the longest row's length.
struct DecodeResult {
  int64_t T = 0;
  std::vector<int64_t> lengths;    // (R)
  std::vector<int64_t> tokens;     // (R, T); past a row's length: undefined
  std::vector<double> log_probs;   // (R, T); 0 past a row's length
  std::vector<double> ranks;       // (R); kBeam only. -inf: there is no such hypothesis
  std::vector<double> attentions;  // (R, T, S), 0 past a row's length; empty unless asked for
  std::vector<double> hidden;      // (R, T, P), likewise
  std::vector<double> contexts;    // (R, T, C), likewise
  int64_t undefined_source = -1, undefined_step = -1;  // where logits were not finite first
};

}  // namespace seq2seq_ext::kernels
