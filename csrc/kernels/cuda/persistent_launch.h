// SPDX-License-Identifier: MIT
// What persistent.cu hands to the instantiations of the persistent kernels, which lie in a file of
// their own for each cell.
#pragma once

#include "cuda/gpu/gpu.h"
#include "cuda/plan.h"
#include "cuda/recurrence.h"

namespace seq2seq_ext::kernels::cuda::persistent {

// Of one launch; the same for all blocks.
struct Group {
  int T, B, H;
  int begin, end;          // steps of the chunk
  const int64_t* lengths;  // null: all T
  int unit_blocks, batch_blocks, batch_tile;
  int k_blocks;           // of 32 exchanged values
  int warp_k_blocks;      // of one warp; the last ones may have fewer
  int resident, spilled;  // of those: in registers, in shared memory
  // (groups, 2, k_blocks * 4, batch_tile) of eight values each: what one step made and the next
  // step reads; two buffers in turn.
  uint4* exchange;
  // (groups, flag_stride): how often a warp of a block has published, one counter for each block.
  unsigned* flags;
  int flag_stride;
};

struct ForwardArgs {
  Group group;
  int64_t y_stride_t, y_stride_b;
  void* y;
  bool reverse[kMaxDirections];
  struct Direction {
    RecurrentWeights weights;
    const void* x_parts;
    void* h;
    void* c;
    void* saved_gates;
    void* saved_cells;
  } direction[kMaxDirections];
};

struct BackwardArgs {
  Group group;
  int64_t y_stride_t, y_stride_b, dy_stride_t, dy_stride_b;
  const void *y, *dy;
  bool reverse[kMaxDirections];
  struct Direction {
    const void *w_hh, *h0, *c0, *saved_gates, *saved_cells;
    void *d_gates, *dh, *dc;
  } direction[kMaxDirections];
};

template <class Args>
using Kernel = void (*)(Args);

// The instantiations: for bfloat16, or else for float16; unit_tile as in the plan.
Kernel<ForwardArgs> forward_lstm(bool bfloat16, int unit_tile);
Kernel<ForwardArgs> forward_gru(bool bfloat16, int unit_tile);
Kernel<ForwardArgs> forward_rnn_tanh(bool bfloat16, int unit_tile);
Kernel<ForwardArgs> forward_rnn_relu(bool bfloat16, int unit_tile);
Kernel<BackwardArgs> backward_lstm(bool bfloat16, int unit_tile);
Kernel<BackwardArgs> backward_gru(bool bfloat16, int unit_tile);
Kernel<BackwardArgs> backward_rnn_tanh(bool bfloat16, int unit_tile);
Kernel<BackwardArgs> backward_rnn_relu(bool bfloat16, int unit_tile);

}  // namespace seq2seq_ext::kernels::cuda::persistent
