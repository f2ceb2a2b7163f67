// SPDX-License-Identifier: MIT
// From gate sums to the new state of one unit of one row: the epilogue of every forward kernel, and
// how a tile's rows are handed out so that one thread holds all gates of its units.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "common/params.h"
#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

// Calls f with a value of the cell's type over the accumulator type A.
template <class A, class F>
auto dispatch_cell(Cell cell, F&& f) {
  switch (cell) {
    case Cell::kLstm:
      return f(LstmCell<Math<A>>{});
    case Cell::kGru:
      return f(GruCell<Math<A>>{});
    case Cell::kRnnTanh:
      return f(RnnCell<Math<A>, false>{});
    case Cell::kRnnRelu:  // no default: the compiler names a cell that is missing
      break;
  }
  return f(RnnCell<Math<A>, true>{});
}

// One unit's biases, and its cell. Loaded once, used for every row (and step) of the unit.
template <class T, class CellType>
struct Gates {
  using Acc = AccOf<T>;
  static constexpr int G = CellType::kGates;

  Acc b_ih[G], b_hh[G];

  Gates() = default;  // for who loads the biases himself, several at a time

  __device__ Gates(const RecurrentWeights& weights, int64_t H, int64_t unit) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      b_ih[g] = weights.b_ih == nullptr ? Acc(0) : bias(weights.b_ih, g * H + unit);
      b_hh[g] = weights.b_hh == nullptr ? Acc(0) : bias(weights.b_hh, g * H + unit);
    }
  }

  // x_sums: W_ih x, h_sums: W_hh h (either may be zero where the other holds their sum, for cells
  // without kSplitHidden). state: c (LSTM), updated. Returns h', or o tanh(c') before a projection,
  // not yet rounded to T; `saved` is what the backward wants, not yet rounded either.
  __device__ Acc forward(const Acc (&x_sums)[G], const Acc (&h_sums)[G], Acc h_prev, Acc& state,
                         Acc (&saved)[CellType::kSaved]) const {
    Acc x_part[G], h_part[G];
#pragma unroll
    for (int g = 0; g < G; ++g) {
      x_part[g] = x_sums[g] + b_ih[g];
      h_part[g] = h_sums[g] + b_hh[g];
    }
    return CellType::forward(x_part, h_part, h_prev, state, saved);
  }

 private:
  __device__ static Acc bias(const void* values, int64_t at) {
    return to_acc(static_cast<const T*>(values)[at]);
  }
};

// How the rows of a Product<T, kM, kN, kWarps> tile are handed out: row 8 r + g of a warp is gate
// r % G of the warp's unit 8 (r / G) + g, so accumulators acc[G * s + gate][c] of a thread are all
// gates of its unit number s, of batch row col(c). kM must be a multiple of 16 kWarps and of
// 8 G kWarps.
template <int G, int kM, int kWarps>
struct GateTile {
  static constexpr int kWarpRows = kM / kWarps;
  static constexpr int kUnits = kM / G;            // of the tile
  static constexpr int kSets = kWarpRows / 8 / G;  // units a thread owns
  static_assert(kSets * 8 * G == kWarpRows && kWarpRows % 16 == 0);

  __device__ static int gate(int tile_row) { return tile_row % kWarpRows / 8 % G; }
  __device__ static int unit(int tile_row) {
    const int r = tile_row % kWarpRows / 8;
    return (tile_row / kWarpRows * kSets + r / G) * 8 + tile_row % 8;
  }

  // The unit, within the tile, of this thread's accumulators acc[G * set ...].
  __device__ static int own_unit(int set) {
    return (int(threadIdx.x) / 32 % kWarps * kSets + set) * 8 + int(threadIdx.x) % 32 / 4;
  }
};

}  // namespace seq2seq_ext::kernels::cuda
