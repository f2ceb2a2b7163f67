// SPDX-License-Identifier: MIT
// The kernels of the stepwise recurrence: what is left of a step beside its products. One launch
// serves all directions. Defined, one storage type a file, in stepwise_<dtype>.cu.
#pragma once

#include "cuda/sequence_queue.h"

namespace seq2seq_ext::kernels::cuda {

// One step, forward. "row 0" pointers are to what belongs to row 0 at the direction's time t.
struct ForwardStep {
  Cell cell;
  int directions;
  int64_t B, H, P;
  const int64_t* lengths;  // (B) or null
  int64_t y_stride_b;
  struct Direction {
    int64_t t;
    RecurrentWeights weights;  // its biases
    const void* x_sums;        // (B, G*H) sum type, row 0
    const void* h_sums;        // (B, G*H) sum type; of hand_out: (B, P)
    void* h;                   // (B, P) dtype, updated in place
    void* c;                   // (B, H) sum type, updated in place; LSTM only
    void* y;                   // (B, P) dtype, row 0
    void* unprojected;         // (B, H) dtype: o tanh(c), instead of h and y; null: no projection
    void* saved_gates;         // (B, num_saved*H) dtype, row 0; null: inference
    void* saved_cells;         // (B, H) sum type, row 0
  } direction[kMaxDirections];
};

// One step, backward.
struct BackwardStep {
  Cell cell;
  int directions;
  int64_t T, B, H, P;
  const int64_t* lengths;
  int64_t y_stride_b, dy_stride_b;
  struct Direction {
    int64_t t;
    bool reverse;
    const void* dy;            // (B, P) dtype, row 0; null: zero
    void* dh;                  // (B, P) sum type: the gradient that comes through the recurrence;
                               // out, for active rows: the part of it that bypasses W_hh
    void* d_hidden;            // (B, P) dtype, row 0: projection only
    const void* d_output;      // (B, H) sum type: gradient of o tanh(c): projection only
    const void* saved_gates;   // (B, num_saved*H) dtype, row 0
    const void* saved_cells;   // (B, H) sum type, row 0
    const void* cells_before;  // (B, H) sum type: saved_cells at the step before
    const void* c0;            // (B, H) sum type
    void* dc;                  // (B, H) sum type, updated in place
    const void* y_before;      // (B, P) dtype: y at the step before
    const void* h0;            // (B, P) dtype
    void* d_gates;             // (B, num_saved*H) dtype, row 0
  } direction[kMaxDirections];
};

struct StepwiseKernels {
  // h_sums, x_sums -> h, c, y, saved; or, with a projection, unprojected, c, saved.
  void (*gates)(Queue&, const ForwardStep&);
  // With a projection: h_sums = W_hr unprojected -> h, y.
  void (*hand_out)(Queue&, const ForwardStep&);
  // With a projection: dh, dy -> d_hidden, dh.
  void (*take_in)(Queue&, const BackwardStep&);
  // dh, dy (or d_output) -> d_gates, dc, dh.
  void (*gates_backward)(Queue&, const BackwardStep&);
};

template <class T>
StepwiseKernels stepwise_kernels();

}  // namespace seq2seq_ext::kernels::cuda
