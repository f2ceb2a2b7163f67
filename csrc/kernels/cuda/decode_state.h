// SPDX-License-Identifier: MIT
// What the kernels of a decode loop share: device memory that lasts for all steps. Rows are B * K
// slots, a source's together, from the first step to the last: what has ended is passed over.
// Kernels know the step from memory, so that a graph can repeat them.
#pragma once

#include <cstdint>

#include "common/decode.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

struct BeamHypothesis {
  double rank;      // -inf: none
  double log_prob;  // of the last token
  int64_t length;
  int slot, word;  // the slot that the last token continues, and it
};

// One candidate of a source's beams.
struct BeamExtension {
  double total;
  int slot, place;  // which of the slot's candidates
};

// Summary of the results, for the host.
struct DecodeSummary {
  uint64_t longest;
  uint64_t undefined;  // row << 32 | step, of the lowest row with such; all bits: none
};

// "word": a row of the output layer. Whatever is chosen is a word in here, but for `tokens`, which
// the embedding is asked for.
struct DecodeState {
  int64_t B, K, rows, C;  // C: candidates of a row
  int64_t V, num_tokens;
  int64_t max_new_tokens, min_new_tokens;
  DType dtype;
  const int64_t* token_of_word = nullptr;  // (V) ascending; null: the same

  int64_t* step;         // (1): the step at work; -1 before the first
  int* live;             // (1): rows that go on behind it
  int64_t* tokens;       // (rows): the last
  int64_t* undefined;    // (rows), with beams of a source's first: the first step whose logits were
                         // not finite; -1: none
  int64_t* source;       // (rows)
  const uint32_t* ends;  // (words): a bit for each word that ends a row

  // Bans of the step at work, and of those from min_new_tokens on; null: none.
  uint32_t* banned = nullptr;  // (ban_rows, words)
  const uint32_t* late = nullptr;
  int64_t ban_rows = 0, words;

  // From the vocabulary: best first, index -1 where there are no more.
  void* log_probs;        // (rows, C) state: the model's
  void* scores_of_words;  // (rows, C) state: after penalties; the same memory where there are none
  int64_t* indices;       // (rows, C)

  // What was chosen.
  int* trace_words;              // (max_new_tokens, rows)
  void* trace_log_probs;         // (max_new_tokens, rows) state
  int* trace_parents = nullptr;  // (max_new_tokens, rows) slots; beams only

  // Greedy decoding and sampling.
  bool* alive = nullptr;       // (rows)
  int64_t* lengths = nullptr;  // (rows)

  // Given tokens.
  const int64_t* given = nullptr;          // (rows, max_new_tokens)
  const int64_t* given_lengths = nullptr;  // (rows)

  // Sampling.
  int64_t* seed = nullptr;     // (1)
  int64_t* row_ids = nullptr;  // (rows)
  double* weights = nullptr;   // (rows, C)

  // Beams.
  int64_t* from = nullptr;             // (rows): the row that each goes on from
  double* scores = nullptr;            // (rows); -inf: no beam
  double* coverage = nullptr;          // (rows): what each beam's coverage is worth; null: nothing
  BeamHypothesis* running = nullptr;   // (rows): as it would rank if it ended now
  BeamHypothesis* finished = nullptr;  // (rows), a source's by descending rank
  bool* group_done = nullptr;          // (B, groups)
  bool* done = nullptr;                // (B)
  double* keys = nullptr;              // (rows, C)
  BeamExtension* extended = nullptr;   // (B, most)
  int64_t groups = 1, width = 0;       // of `width` beams each
  int64_t most = 0;                    // candidates of a group that count

  DecodeSummary* summary;  // (1)
};

// Before the first step. row_ids: (B) or null.
struct DecodeBegin {
  DecodeState state;
  int64_t start_token;
  uint64_t seed;
  const int64_t* row_ids;
};
Status decode_begin(const DecodeBegin& begin, const Runtime& runtime);

// to[row] = from[row / group], or zeros where `from` is null; width in bytes.
Status decode_spread(void* to, const void* from, int64_t rows, int64_t group, int64_t width,
                     const Runtime& runtime);

// Sets the bits of `count` tokens' words in each of the rows of bits (rows, words); before that, if
// `fresh`, those of the words that are not allowed, by `allowed` (rows, V) or null, and no others.
Status decode_set_bits(const DecodeState& state, uint32_t* bits, int64_t rows,
                       const int64_t* tokens, int64_t count, bool fresh, const uint8_t* allowed,
                       const Runtime& runtime);

// What depends on a row's history, and what is forced upon it, at the step at work: written for the
// rows that are live.
struct DecodeConstraints {
  DecodeState state;
  int* before = nullptr;  // (rows, max_new_tokens): the words of each row, of one step less; where
  int* now = nullptr;     // rows stay in their places both are the same. Null: nobody asks
  int64_t ngram = 0;      // no_repeat_ngram_size
  const int* phrases = nullptr;      // the words of one phrase after the other
  const int* phrase_ends = nullptr;  // (num_phrases): where each ends
  int64_t num_phrases = 0;
  const int64_t* forced = nullptr;  // (B, forced_size) tokens; -1: any. Null: any
  int64_t forced_size = 0;
  uint32_t* banned = nullptr;  // (rows, words)
  uint32_t* seen = nullptr;    // (rows, words); null: not wanted
};
Status decode_constrain(const DecodeConstraints& constraints, const Runtime& runtime);
// `count` integers, or the words of so many tokens (-1: no word), into device memory.
Status decode_store(const DecodeState& state, int* to, const int64_t* from, int64_t count,
                    bool words, const Runtime& runtime);
Status decode_store(double* to, const double* from, int64_t count, const Runtime& runtime);

// Begins a step: x = [embedding of the last token; `second`], second of the row's source or, if
// `fed`, of the row that it goes on from.
struct DecodeGather {
  DecodeState state;
  void* x;                      // (rows, width + second_width)
  const void* embedding;        // (num_tokens, width)
  const void* second;           // (B or rows, second_width)
  int64_t width, second_width;  // bytes
  bool fed;
};
Status decode_gather(const DecodeGather& gather, const Runtime& runtime);

// Ends a step, by mode. Sampling draws from the candidates, unless they are the draw (C == 1).
struct DecodeDraw {
  double temperature, top_p, lowest;  // lowest: log(min_p), or -inf
};
Status decode_pick(const DecodeState& state, const Runtime& runtime);
Status decode_draw(const DecodeState& state, const DecodeDraw& draw, const Runtime& runtime);

struct DecodeBeam {
  const double* norms;  // (max_new_tokens + 1): length**length_penalty
  double diversity_penalty;
  DecodeOptions::EarlyStopping early_stopping;
  int64_t group = 0;  // of which each has its turn
};
Status decode_beam(const DecodeState& state, DecodeBeam beam, const Runtime& runtime);

// Before decode_beam, of all beams: attention of this step added to that of those before.
struct DecodeCoverage {
  DecodeState state;
  DType dtype;
  int64_t S;
  double penalty;
  const void* weights;     // (rows, S) dtype
  const int64_t* lengths;  // (B) or null
  const double* before;    // (rows, S)
  double* now;             // (rows, S)
};
Status decode_cover(const DecodeCoverage& coverage, const Runtime& runtime);

// What is kept of each live row at each step besides its choice; widths in bytes.
struct DecodeKept {
  const void* rows;  // (rows, width)
  int64_t width;
  void* trace;  // (max_new_tokens, rows, width)
};
Status decode_keep(const DecodeState& state, const DecodeKept& kept, const Runtime& runtime);

// The results' lengths (B * results), ranks (with beams), and the summary.
Status decode_summarize(const DecodeState& state, int64_t results, int64_t* lengths, double* ranks,
                        const Runtime& runtime);
// (B * results, T) each; made_by, unless null: the row whose step chose each token.
Status decode_follow(const DecodeState& state, int64_t results, int64_t T, const int64_t* lengths,
                     int64_t* tokens, void* log_probs, int* made_by, const Runtime& runtime);
// What was kept of those rows, zeros past a length: (R, T, width).
Status decode_collect(const DecodeState& state, const DecodeKept& kept, int64_t R, int64_t T,
                      const int64_t* lengths, const int* made_by, void* to, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
