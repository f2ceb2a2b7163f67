// SPDX-License-Identifier: MIT
// The backward recurrence at one cell: what it loads, how the gradient of h becomes those of the
// gates, what it writes. The same for blocks that share the units and blocks that have all of them
// (Map: persistent_cells.cuh).
#pragma once

#include "cuda/persistent_cells.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class T, class CellType, class Map>
struct BackwardCells : Map {
  static constexpr int G = CellType::kGates, S = CellType::kSaved;
  static constexpr int kFirstHidden = S - G;  // of the gate gradients, those of W_hh's rows
  using Map::args, Map::group, Map::direction, Map::place, Map::reverse, Map::H, Map::unit;
  using Map::kCells, Map::row, Map::entry, Map::batch_row, Map::has_cell, Map::time;

  // Gradients of h, so far as they bypass W_hh, and of c. In shared memory; each entry has one
  // thread.
  float *dh_state, *dc_state;
  int* length;

  __device__ __forceinline__ BackwardCells(const BackwardArgs& args, const Place& place,
                                           gpu::Carver& carver)
      : Map(args, place) {
    dh_state = carver.take<float>(Map::entries());
    dc_state = carver.take<float>(Map::entries());
    length = carver.take<int>(Map::entries());
  }

  __device__ void load_state() {
    each_cell(*this, [&](int at, int r) {
      const int64_t from = batch_row(r) * H + unit;
      dh_state[at] = static_cast<const float*>(direction.dh)[from];
      if (CellType::kHasCell) dc_state[at] = static_cast<const float*>(direction.dc)[from];
      length[at] = Place::row_length(group, int(batch_row(r)));
    });
  }
  __device__ void store_state() const {
    each_cell(*this, [&](int at, int r) {
      const int64_t to = batch_row(r) * H + unit;
      static_cast<float*>(direction.dh)[to] = dh_state[at];
      if (CellType::kHasCell) static_cast<float*>(direction.dc)[to] = dc_state[at];
    });
  }

  // K runs over eight units of gate 0, of gate 1, ..., then the next eight units: what a block
  // makes is in one piece.
  __device__ static int exchanged_index(int of_unit, int gate) {
    return (of_unit / 8 * G + gate) * 8 + of_unit % 8;
  }
  // Eight values of W_hh^T for the product; row i * 8 + g is a unit of set i.
  __device__ uint4 weights(int i, int k) const {
    const int column = Map::weight_unit(i), gate = k / 8 % G, first = k / 8 / G * 8;
    const T* from = static_cast<const T*>(direction.w_hh) + int64_t(gate) * H * H + column;
    T values[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const bool in = first + j < H && column < H;
      values[j] = in ? from[int64_t(first + j) * H] : from_acc<T>(0.f);
    }
    return packed(values);
  }

  // What a pass of a step reads of memory.
  struct Inputs {
    T saved[kCells][S], h_prev[kCells], dy[kCells];
    float c[kCells], c_prev[kCells];
  };

  __device__ __forceinline__ void load_inputs(int step, int pass, Inputs& in) const {
    if (step < place.first) return;
    const int64_t t = time(step), t_prev = reverse ? t + 1 : t - 1;
    const int64_t column = int64_t(place.direction) * H + unit;
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      const int64_t b = batch_row(r), rows = t * group.B + b;
      const bool has_prev = reverse ? t_prev < length[entry(r)] : t_prev >= 0;
      const T* saved = static_cast<const T*>(direction.saved_gates) + rows * S * H + unit;
#pragma unroll
      for (int s = 0; s < S; ++s) in.saved[i][s] = __ldcs(saved + int64_t(s) * H);
      if constexpr (CellType::kHasCell) {
        const float* cells = static_cast<const float*>(direction.saved_cells) + unit;
        in.c[i] = cells[rows * H];
        in.c_prev[i] = has_prev ? cells[(t_prev * group.B + b) * H]
                                : static_cast<const float*>(direction.c0)[b * H + unit];
      }
      if constexpr (CellType::kSplitHidden) {
        in.h_prev[i] = has_prev
                           ? static_cast<const T*>(
                                 args.y)[t_prev * args.y_stride_t + b * args.y_stride_b + column]
                           : static_cast<const T*>(direction.h0)[b * H + unit];
      }
      if (args.dy != nullptr) {
        in.dy[i] =
            static_cast<const T*>(args.dy)[t * args.dy_stride_t + b * args.dy_stride_b + column];
      }
    }
  }

  // take(r, sum) gives a cell's gradient of h that came through W_hh: it joins what bypassed it.
  template <class Take>
  __device__ __forceinline__ void add_products(int pass, const Take& take) {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      float dh[1];
      take(r, dh);
      dh_state[entry(r)] += dh[0];
    }
  }

  using Gradients = T[kCells][S];

  // Back through the gates of a pass's cells: give(r, k, gradient) has those of W_hh's rows.
  template <class Give>
  __device__ __forceinline__ void run_cells(int step, int pass, const Inputs& in,
                                            Gradients& gradients, const Give& give) {
    const int t = time(step);
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      const int at = entry(r);
      float d_gates[S] = {};
      if (t < length[at]) {
        float saved[S];
#pragma unroll
        for (int s = 0; s < S; ++s) saved[s] = to_acc(in.saved[i][s]);
        const float dh = dh_state[at] + (args.dy != nullptr ? to_acc(in.dy[i]) : 0.f);
        float before = 0, after = 0, d_state = 0;
        if constexpr (CellType::kHasCell) {
          after = in.c[i];
          before = in.c_prev[i];
          d_state = dc_state[at];
        }
        if constexpr (CellType::kSplitHidden) before = to_acc(in.h_prev[i]);
        CellType::backward(dh, saved, after, before, d_state, d_gates);
        if (CellType::kHasCell) dc_state[at] = d_state;
        dh_state[at] = CellType::kSplitHidden ? d_state : 0.f;
      }
#pragma unroll
      for (int s = 0; s < S; ++s) {
        gradients[i][s] = from_acc<T>(d_gates[s]);
        if (s >= kFirstHidden) give(r, exchanged_index(unit, s - kFirstHidden), gradients[i][s]);
      }
    }
  }

  __device__ __forceinline__ void write_pass(int step, int pass, const Gradients& gradients) const {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      T* to = static_cast<T*>(direction.d_gates) +
              (int64_t(time(step)) * group.B + batch_row(r)) * S * H + unit;
#pragma unroll
      for (int s = 0; s < S; ++s) to[int64_t(s) * H] = gradients[i][s];
    }
  }

  // Steps in which no row of the group is active.
  __device__ void write_idle() const {
    Gradients none;
    for (int i = 0; i < kCells; ++i) {
      for (int s = 0; s < S; ++s) none[i][s] = from_acc<T>(0.f);
    }
    for (int step = group.begin; step < group.end; ++step) {
      if (step >= place.first && step < place.last) continue;
      for (int pass = 0; pass < Map::passes(); ++pass) write_pass(step, pass, none);
    }
  }
};

}  // namespace seq2seq_ext::kernels::cuda::persistent
