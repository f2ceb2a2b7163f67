// SPDX-License-Identifier: MIT
#include "cuda/math.cuh"
#include "cuda/sequence_states.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Move {
  const void *h_from, *c_from;  // null: zero
  void *h_to, *c_to;            // null: none
};
struct Moves {
  int64_t h_count, c_count;
  Move direction[kMaxDirections];
};

// h from type From to To, and c, in the sum type; direction blockIdx.y.
template <class From, class To>
__global__ void __launch_bounds__(kThreads) states_kernel(const __grid_constant__ Moves moves) {
  using Acc = AccOf<To>;
  const Move& m = moves.direction[blockIdx.y];
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (m.h_to != nullptr && i < moves.h_count) {
    const Acc h = m.h_from == nullptr ? Acc(0) : Acc(to_acc(static_cast<const From*>(m.h_from)[i]));
    static_cast<To*>(m.h_to)[i] = from_acc<To>(h);
  }
  if (m.c_to != nullptr && i < moves.c_count) {
    static_cast<Acc*>(m.c_to)[i] =
        m.c_from == nullptr ? Acc(0) : static_cast<const Acc*>(m.c_from)[i];
  }
}

template <class From, class To>
void move(Queue& queue, const SequenceShape& s, const Moves& moves) {
  const int64_t count = moves.h_count > moves.c_count ? moves.h_count : moves.c_count;
  queue.launch("states", states_kernel<From, To>,
               dim3(blocks_of(count, kThreads), static_cast<unsigned>(s.directions)), kThreads,
               moves);
}

}  // namespace

void initial_states(Queue& queue, const SequenceForwardParams& params) {
  const SequenceShape& s = params.shape;
  Moves moves{s.B * s.P, s.B * s.H, {}};
  for (int d = 0; d < s.directions; ++d) {
    const auto& direction = params.direction[d];
    moves.direction[d] = {direction.h0, direction.c0, direction.h_n, direction.c_n};
  }
  dispatch_dtype(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    move<T, T>(queue, s, moves);
  });
}

void final_gradients(Queue& queue, const BackwardChunk& chunk) {
  const SequenceShape& s = chunk.params->shape;
  Moves moves{s.B * s.P, s.B * s.H, {}};
  for (int d = 0; d < s.directions; ++d) {
    const auto& from = chunk.params->direction[d];
    const auto& to = chunk.direction[d];
    moves.direction[d] = {from.dh_n, from.dc_n, to.dh, to.dc};
  }
  dispatch_dtype(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    move<T, AccOf<T>>(queue, s, moves);
  });
}

void initial_gradients(Queue& queue, const BackwardChunk& chunk) {
  const SequenceShape& s = chunk.params->shape;
  Moves moves{s.B * s.P, s.B * s.H, {}};
  bool wanted = false;
  for (int d = 0; d < s.directions; ++d) {
    const auto& from = chunk.direction[d];
    const auto& to = chunk.params->direction[d];
    // The recurrence may have worked on dc0 itself.
    void* const dc0 = to.dc0 == from.dc ? nullptr : to.dc0;
    moves.direction[d] = {from.dh, from.dc, to.dh0, dc0};
    wanted |= to.dh0 != nullptr || dc0 != nullptr;
  }
  if (!wanted) return;
  dispatch_dtype(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    move<AccOf<T>, T>(queue, s, moves);
  });
}

}  // namespace seq2seq_ext::kernels::cuda
