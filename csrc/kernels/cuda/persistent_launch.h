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

// Launches a kernel of which all blocks have to be resident at once.
template <class Args>
Status launch(const char* name, void (*kernel)(Args), const Args& args, const Plan& plan,
              int directions, const Runtime& runtime) {
  gpu::Config config;
  config.grid = dim3(unsigned(plan.unit_blocks) * plan.batch_blocks * directions);
  config.block = dim3(kThreads);
  config.smem = size_t(plan.shared_bytes);
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  config.cooperative = true;
  const cudaError_t error = gpu::launch(config, name, kernel, args);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(std::string(name) + ": launch failed");
}

template <class Args>
using Launcher = Status(DType dtype, const Args& args, const Plan& plan, int directions,
                        const Runtime& runtime);
Launcher<ForwardArgs> forward_lstm, forward_gru, forward_rnn_tanh, forward_rnn_relu;
Launcher<BackwardArgs> backward_lstm, backward_gru, backward_rnn_tanh, backward_rnn_relu;

}  // namespace seq2seq_ext::kernels::cuda::persistent
