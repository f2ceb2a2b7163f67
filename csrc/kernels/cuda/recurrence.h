// SPDX-License-Identifier: MIT
// The recurrence of a sequence by itself, and who runs it. sequence.cu makes the input projections
// before it and the products for dW and dx after it; persistent*.cu and stepwise*.cu run what is
// between: two implementations of the same functions on the same memory.
//
// Layout is dense in time: row b at time t is at (t, b), active while t < lengths[b]. Step k of a
// direction is at time t = reverse ? T - 1 - k : k. An inactive row keeps its state; its y, saved
// values and gate gradients are zero.
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// Steps [begin, end) of the forward recurrence, all directions.
struct ForwardChunk {
  const SequenceForwardParams* params;
  int64_t begin, end;
  struct Direction {
    // (end - begin, B, G*H) float32 (float64 for float64): W_ih x without biases, in the order of
    // t.
    const void* x_parts;
    void* h;  // (B, P) dtype, contiguous: state before step `begin`; on return after end - 1
    void* c = nullptr;  // (B, H) state: likewise; LSTM only
  } direction[kMaxDirections];
};

// Steps end - 1 down to begin of the backward recurrence, all directions.
struct BackwardChunk {
  const SequenceBackwardParams* params;
  int64_t begin, end;
  struct Direction {
    // (T, B, num_saved*H) dtype, the whole sequence's; rows of this chunk are written. Slots as in
    // the cell's backward: LSTM di, df, dg, do; GRU dn through x, then dr, dz, dn through h; RNN
    // dh.
    void* d_gates;
    // Gradient of h after step end - 1 that comes through the recurrence (not dy), (B, P) float32
    // (float64); on return that of h before step `begin`. Rows whose last step is still to come
    // hold what dh_n brings.
    void* dh;
    void* dc = nullptr;        // (B, H) state: likewise for c; LSTM only
    void* d_hidden = nullptr;  // (T, B, P) dtype: whole gradient of h, for dW_hr; projection only
  } direction[kMaxDirections];
};

// Which implementation runs, and how it is cut: a function of shape and device alone.
struct Plan {
  bool persistent = false;
  const char* reason = "";  // why not persistent
  int unit_blocks = 0;      // persistent: blocks that share H, each with unit_tile units
  int batch_blocks = 0;     // groups of rows that never wait for each other
  int unit_tile = 0, batch_tile = 0;
  int resident = 0;          // of each warp's slice of K, in blocks of 32: weights in registers;
                             // those of the others are in shared memory
  int64_t shared_bytes = 0;  // of one block
  int64_t chunk_steps = 0;   // steps a launch
};
Plan plan_forward(const SequenceShape& shape, const Device& device);
Plan plan_backward(const SequenceShape& shape, const Device& device);

Status persistent_forward(const ForwardChunk& chunk, const Plan& plan, const Runtime& runtime);
Status persistent_backward(const BackwardChunk& chunk, const Plan& plan, const Runtime& runtime);
Status stepwise_forward(const ForwardChunk& chunk, const Runtime& runtime);
Status stepwise_backward(const BackwardChunk& chunk, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
