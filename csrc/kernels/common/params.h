// SPDX-License-Identifier: MIT
// The contract between a caller and a kernel: plain structs. The caller owns all memory, for the
// duration of the call.
//
// Legend: T time, B batch, I input, H hidden, P output of a step (= H, or the LSTM's proj_size), G
// gates, D directions, S source length, A attention size, C context size, V vocabulary, K picks a
// row, N valid (time, row) pairs.
//
// "dtype" tensors have the element type `dtype`. "state" tensors are float64 for float64 and
// float32 for all others. Inputs may alias each other; an output aliases nothing unless its comment
// says so. Strides are in elements.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace seq2seq_ext::kernels {

enum class Cell : int { kLstm, kGru, kRnnTanh, kRnnRelu };

constexpr int64_t num_gates(Cell cell) {
  return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1;
}

// Values a cell keeps per unit and step for its backward: LSTM i, f, g, o; GRU r, z, n, W_hn h +
// b_hn; RNN h. (The LSTM keeps its cell state besides, in `saved_cells`.)
constexpr int64_t num_saved(Cell cell) { return cell == Cell::kLstm || cell == Cell::kGru ? 4 : 1; }

constexpr int kMaxDirections = 2;

// Parameters of one direction of one layer, laid out as torch.nn lays them out (LSTM i, f, g, o;
// GRU r, z, n).
struct RecurrentWeights {
  const void* w_ih = nullptr;  // (G*H, I) dtype
  const void* w_hh = nullptr;  // (G*H, P) dtype
  const void* b_ih = nullptr;  // (G*H) dtype; null: no bias (then b_hh is null, too)
  const void* b_hh = nullptr;  // (G*H) dtype
  const void* w_hr = nullptr;  // (P, H) dtype; LSTM with projection only, else null and P == H
};

struct RecurrentWeightGrads {
  void* w_ih = nullptr;  // shapes as above, dtype; each may be null: not wanted
  void* w_hh = nullptr;
  void* b_ih = nullptr;
  void* b_hh = nullptr;
  void* w_hr = nullptr;
};

// ---------------------------------------------------------------------------------------------------------------------
// Sequence: one layer, one or two directions, all time steps.
//
// Row b takes part in its first lengths[b] steps. A reverse direction runs from lengths[b] - 1 down
// to 0. y is zero from lengths[b] on; h_n and c_n are the states after the last valid step (h0 and
// c0 where lengths[b] == 0).

struct SequenceShape {
  Cell cell;
  DType dtype;
  int64_t T, B, I, H, P;
  int directions;                    // 1 or 2
  bool reverse[kMaxDirections];      // per direction
  const int64_t* lengths = nullptr;  // (B), each in [0, T]; null: all T
};

struct SequenceForwardParams {
  SequenceShape shape;
  const void* x;  // (T, B, I) dtype, last dimension contiguous
  int64_t x_stride_t, x_stride_b;
  void*
      y;  // (T, B, D*P) dtype, last dimension contiguous; direction d writes columns [d*P, (d+1)*P)
  int64_t y_stride_t, y_stride_b;

  struct Direction {
    RecurrentWeights weights;
    const void* h0;            // (B, P) dtype
    const void* c0 = nullptr;  // (B, H) state; LSTM only
    void* h_n;                 // (B, P) dtype
    void* c_n = nullptr;       // (B, H) state; LSTM only
    void* saved_gates =
        nullptr;  // (T*B, num_saved*H) dtype, opaque, for the backward; null: inference
    void* saved_cells = nullptr;  // (T*B, H) state, LSTM only, opaque; null: inference
    // Both hold one row for each of the N valid entries; rows from N on are not written.
  } direction[kMaxDirections];
};

struct SequenceBackwardParams {
  SequenceShape shape;  // as given to the forward
  const void* x;        // (T, B, I) dtype, last dimension contiguous
  int64_t x_stride_t, x_stride_b;
  const void* y;  // (T, B, D*P) dtype: the forward's output
  int64_t y_stride_t, y_stride_b;
  const void* dy;  // (T, B, D*P) dtype, last dimension contiguous; null: zero. Values past a row's
                   // length are ignored.
  int64_t dy_stride_t, dy_stride_b;
  void* dx;  // (T, B, I) dtype, contiguous, summed over directions, zero past a row's length; null:
             // not wanted

  struct Direction {
    RecurrentWeights weights;
    const void* h0;                     // (B, P) dtype
    const void* c0 = nullptr;           // (B, H) state
    const void* dh_n = nullptr;         // (B, P) dtype; null: zero
    const void* dc_n = nullptr;         // (B, H) state; null: zero
    const void* saved_gates;            // from the forward
    const void* saved_cells = nullptr;  // from the forward
    void* dh0 = nullptr;                // (B, P) dtype; null: not wanted
    void* dc0 = nullptr;                // (B, H) state; null: not wanted
    RecurrentWeightGrads grads;
  } direction[kMaxDirections];
};

// ---------------------------------------------------------------------------------------------------------------------
// Step: one layer, one direction, one time step, no gradient. Row b's result depends on row b
// alone, bit for bit.

struct StepParams {
  Cell cell;
  DType dtype;
  int64_t B, I, H, P;
  RecurrentWeights weights;
  const void* x;  // (B, I) dtype, rows x_stride_b apart
  int64_t x_stride_b;
  const void* h;                  // (B, P) dtype, contiguous
  const void* c = nullptr;        // (B, H) state, contiguous; LSTM only
  void* h_out;                    // (B, P) dtype, contiguous; must not alias h
  void* c_out = nullptr;          // (B, H) state, contiguous; may alias c unless there is `from`
  const int64_t* from = nullptr;  // (B): the row of h and c that each row goes on from; null: its
                                  // own
  // Decoding alone: the weights again in panels, which are then what is read.
  const void* ih_panels = nullptr;
  const void* hh_panels = nullptr;
  const void* hr_panels = nullptr;
};

// ---------------------------------------------------------------------------------------------------------------------
// Attention step: q = w_query @ query (or query itself), score[s] = scale * q . keys[s]  (kDot)
//                 or v . tanh(q + keys[s])  (kAdditive); weights = softmax over s < lengths;
//                 context = weights @ values.
// Row b's result depends on row b alone, bit for bit, and not on S beyond lengths[b].

enum class AttentionScore : int { kDot, kAdditive };

struct AttentionStepParams {
  AttentionScore score;
  DType dtype;
  int64_t B, Q, A, S, C;
  double scale;                   // kDot only
  const void* query;              // (B, Q) dtype, contiguous
  const void* w_query = nullptr;  // (A, Q) dtype, contiguous; null: Q == A
  const void* v = nullptr;        // (A) dtype; kAdditive only
  const void* keys;               // (B, S, A) dtype, last dimension contiguous
  int64_t keys_stride_b, keys_stride_s;
  const void* values;  // (B, S, C) dtype, last dimension contiguous
  int64_t values_stride_b, values_stride_s;
  const int64_t* lengths =
      nullptr;  // (B), each in [0, S]; null: all S. Length 0: context and weights are zero.
  const int64_t* source = nullptr;  // (B): the row of keys, values and lengths that each row
                                    // attends to; null: its own
  void* context;                    // (B, C) dtype, contiguous
  void* weights;                    // (B, S) dtype, contiguous; zero past a row's length
};

// ---------------------------------------------------------------------------------------------------------------------
// Linear map of rows, y = weight @ x + bias, or its tanh; no gradient. Row n's result depends on
// row n alone, bit for bit. CPU only.

struct LinearRowsParams {
  DType dtype;
  int64_t N, K, M;             // rows, inputs, outputs
  const void* x;               // (N, K) dtype, contiguous
  const void* weight;          // (M, K) dtype, contiguous
  const void* bias = nullptr;  // (M) dtype
  bool tanh = false;
  void* y;  // (N, M) dtype, contiguous
};

// ---------------------------------------------------------------------------------------------------------------------
// Weights packed for decoding: see cpu/panels.h. What panels look like is the affair of the
// instruction set that runs. CPU only.

struct PanelsParams {
  DType dtype;
  int64_t N, K;
  int gates;           // of a cell's weights (G*H, K); 0: an output layer's (V, K)
  const void* weight;  // (N, K) dtype, contiguous
  void* panels;        // as many elements as pack_panels says; null: it only says
};

// ---------------------------------------------------------------------------------------------------------------------
// Vocabulary pick: the K largest of log_softmax(logits), logits = (weight @ hidden + bias) /
// temperature, without writing (B, V) anything. Sorted by descending probability; ties go to the
// lowest index. A banned word's logit counts as -inf, whatever it is. A row whose logits hold a NaN
// or +inf, or are all -inf, yields log-probability NaN and indices 0 .. K-1. Row b's result depends
// on row b alone, bit for bit.
//
// With a seed, one word is drawn from softmax(logits) instead, the one with the largest logit +
// Gumbel noise; its log-probability is that of the distribution drawn from, without the noise. The
// noise of a word depends on (seed, step, row id, word) alone (common/philox.h).

struct VocabPickParams {
  DType dtype;
  int64_t B, H, V, K;               // 1 <= K <= V; K == 1 with a seed
  const void* hidden;               // (B, H) dtype, contiguous
  const void* weight;               // (V, H) dtype, contiguous
  const void* panels = nullptr;     // CPU only: the weight in panels, which is then what is read
  const void* bias = nullptr;       // (V) dtype
  double temperature = 1.0;         // > 0
  const int32_t* banned = nullptr;  // (B, ceil(V/32)): bit v%32 of [v/32] bans word v; null: none
  int64_t rows_a_ban = 1;           // CUDA only: so many rows after each other share one of those
  const int64_t* seed = nullptr;    // (1); null: the K largest
  const int64_t* step = nullptr;    // (1), counts modulo 2^32; with a seed
  const int64_t* rows = nullptr;    // (B) row ids; null: 0 .. B-1
  void* log_probs;                  // (B, K) state
  int64_t* indices;                 // (B, K)
  // CUDA only: log_probs are the model's own, at temperature 1 and without bans, and a row without
  // a distribution is one whose logits are such before bans. Where fewer than K words are allowed,
  // or have logits above -inf, the rest have log-probability -inf and index -1.
  bool plain = false;
  // With `plain`: words are picked by their logits after the repetition penalty, which divides
  // those of the words seen where they are positive, else multiplies them.
  const int32_t* seen = nullptr;  // (B, ceil(V/32)) as `banned`; null: none
  double repetition_penalty = 1;
  void* scores = nullptr;  // (B, K) state: log_probs after it; null: not wanted
};

// ---------------------------------------------------------------------------------------------------------------------
// Linear + cross-entropy: torch's cross_entropy of the logits weight @ hidden + bias, without
// writing (N, V) anything. N counts rows here, ignored ones included. With z a row's logits, y its
// target, c the class weights, e the label smoothing:
//   loss[n] = (1 - e) c[y] (lse - z[y]) + e / V * sum over v of c[v] (lse - z[v])
// where lse = log of the sum of exp(z), and 0 where y == ignore_index. kSum adds the rows up; kMean
// divides that by the sum of c[y] over the rows that count, and is 0 where that sum is 0. A row
// whose target is neither in 0 .. V-1 nor ignored, or whose logits hold a NaN or +inf or are all
// -inf, has loss and gradients NaN.

enum class Reduction : int { kNone, kSum, kMean };

struct CrossEntropyInputs {
  DType dtype;
  int64_t N, H, V;                     // H, V >= 1
  const void* hidden;                  // (N, H) dtype, contiguous
  const void* weight;                  // (V, H) dtype, contiguous
  const void* bias = nullptr;          // (V) dtype
  const int64_t* target;               // (N)
  const void* class_weight = nullptr;  // (V) state; null: all 1
  int64_t ignore_index;
  double label_smoothing;  // 0 to 1
  Reduction reduction;
};

// How many words' logits are kept: all, or a multiple of this.
constexpr int64_t kKeptWords = 384;

struct CrossEntropyForwardParams {
  CrossEntropyInputs in;
  void* loss;  // (N) state for kNone, else (1)
  void* lse;   // (N) state, for the backward; 0 for ignored rows
  void* sums;  // (2) state, for the backward: kMean's divisor, and the sum of all class weights
  // CPU only: the logits of the first words, for a backward that does not compute these again.
  int64_t kept = 0;
  void* logits = nullptr;  // (N, kept) state; 0 for ignored rows
};

struct CrossEntropyBackwardParams {
  CrossEntropyInputs in;         // as given to the forward
  const void* lse;               // from the forward
  const void* sums;              // from the forward
  const void* d_loss;            // (N) state for kNone, else (1)
  int64_t kept = 0;              // as given to the forward
  const void* logits = nullptr;  // from the forward
  void* d_hidden = nullptr;      // (N, H) dtype; null: not wanted, and so below
  void* d_weight = nullptr;      // (V, H) dtype
  void* d_bias = nullptr;        // (V) dtype
  // CUDA: the logits' gradients are made for as many words at a time as keep within this (but never
  // fewer than one tile).
  int64_t work_bytes = int64_t{128} << 20;
};

}  // namespace seq2seq_ext::kernels
