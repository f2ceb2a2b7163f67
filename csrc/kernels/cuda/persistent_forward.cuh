// SPDX-License-Identifier: MIT
// The forward recurrence at one cell: what it loads, how it becomes h, what it writes. The same for
// blocks that share the units and blocks that have all of them (Map: persistent_cells.cuh).
#pragma once

#include "cuda/persistent_cells.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class T, class CellType, class Map>
struct ForwardCells : Map {
  static constexpr int G = CellType::kGates, S = CellType::kSaved;
  using Map::args, Map::group, Map::direction, Map::place, Map::reverse, Map::H, Map::unit;
  using Map::has_unit, Map::kCells, Map::row, Map::entry, Map::batch_row, Map::has_cell, Map::time;

  // In shared memory, for it is free there and registers are not. Each entry has one thread.
  float *h_state, *c_state;
  int* length;
  float* biases;  // (2 G, thread)

  __device__ __forceinline__ ForwardCells(const ForwardArgs& args, const Place& place,
                                          gpu::Carver& carver)
      : Map(args, place) {
    h_state = carver.take<float>(Map::entries());
    c_state = carver.take<float>(Map::entries());
    length = carver.take<int>(Map::entries());
    biases = carver.take<float>(2 * G * kThreads);
  }

  __device__ void load_state() {
    each_cell(*this, [&](int at, int r) {
      const int64_t from = batch_row(r) * H + unit;
      h_state[at] = to_acc(static_cast<const T*>(direction.h)[from]);
      if (CellType::kHasCell) c_state[at] = static_cast<const float*>(direction.c)[from];
      length[at] = Place::row_length(group, int(batch_row(r)));
    });
    load_biases(direction.weights.b_ih, 0);
    load_biases(direction.weights.b_hh, 1);
  }

  __device__ void store_state() const {
    each_cell(*this, [&](int at, int r) {
      const int64_t to = batch_row(r) * H + unit;
      static_cast<T*>(direction.h)[to] = from_acc<T>(h_state[at]);
      if (CellType::kHasCell) static_cast<float*>(direction.c)[to] = c_state[at];
    });
  }

  // side: 0 for b_ih, 1 for b_hh.
  __device__ void load_biases(const void* values, int side) {
    for (int gate = 0; gate < G; ++gate) {
      const bool has = values != nullptr && has_unit;
      biases[(side * G + gate) * kThreads + int(threadIdx.x)] =
          has ? to_acc(static_cast<const T*>(values)[int64_t(gate) * H + unit]) : 0.f;
    }
  }
  __device__ __forceinline__ void add_biases(int side, float (&sums)[G]) const {
#pragma unroll
    for (int gate = 0; gate < G; ++gate) {
      sums[gate] += biases[(side * G + gate) * kThreads + int(threadIdx.x)];
    }
  }

  // Eight values of W_hh for the product; row i * 8 + g is gate i % G of a unit of set i / G.
  __device__ uint4 weights(int i, int k) const {
    const int of_unit = Map::weight_unit(i / G);
    const bool in = of_unit < H;
    return eight_values(static_cast<const T*>(direction.weights.w_hh) +
                            (int64_t(i % G) * H + (in ? of_unit : 0)) * H,
                        k, in ? H : 0);
  }

  using Parts = float[kCells][G];

  // What x adds in a pass of a step.
  __device__ __forceinline__ void load_x(int step, int pass, Parts& x) const {
    if (step >= place.last) return;
    const int64_t index = time(step) - (reverse ? group.T - group.end : group.begin);
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      const float* from = static_cast<const float*>(direction.x_parts) +
                          (index * group.B + batch_row(r)) * G * H + unit;
#pragma unroll
      for (int gate = 0; gate < G; ++gate) x[i][gate] = __ldcs(from + int64_t(gate) * H);
    }
  }

  struct Results {
    float h[kCells], c[kCells], saved[kCells][S];
    bool active[kCells];
  };

  // A pass of a step: take(r, sums) gives W_hh h of a cell, give(r, h) has its new h.
  template <class Take, class Give>
  __device__ __forceinline__ void run_cells(int step, int pass, Parts& x, Results& results,
                                            const Take& take, const Give& give) {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      const int at = entry(r);
      float h_sums[G];
      take(r, h_sums);
      add_biases(0, x[i]);
      add_biases(1, h_sums);
      const float h_prev = h_state[at];
      float c = CellType::kHasCell ? c_state[at] : 0.f;
      const T h = from_acc<T>(CellType::forward(x[i], h_sums, h_prev, c, results.saved[i]));
      results.active[i] = time(step) < length[at];
      results.c[i] = c;
      results.h[i] = results.active[i] ? to_acc(h) : h_prev;
      give(r, from_acc<T>(results.h[i]));
      if (!results.active[i]) continue;
      h_state[at] = results.h[i];
      if (CellType::kHasCell) c_state[at] = c;
    }
  }

  __device__ __forceinline__ void write_pass(int step, int pass, const Results& results) const {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      write(time(step), r, results.active[i], results.h[i], results.c[i], results.saved[i]);
    }
  }

  // A cell's results as others read them; zeros where the row is inactive.
  __device__ __forceinline__ void write(int t, int r, bool active, float h, float c,
                                        const float (&saved)[S]) const {
    const int64_t b = batch_row(r);
    static_cast<T*>(
        args.y)[t * args.y_stride_t + b * args.y_stride_b + int64_t(place.direction) * H + unit] =
        from_acc<T>(active ? h : 0.f);
    if (direction.saved_gates == nullptr) return;
    const int64_t at = int64_t(t) * group.B + b;
    T* to = static_cast<T*>(direction.saved_gates) + at * S * H + unit;
#pragma unroll
    for (int s = 0; s < S; ++s) to[int64_t(s) * H] = from_acc<T>(active ? saved[s] : 0.f);
    if (CellType::kHasCell) {
      static_cast<float*>(direction.saved_cells)[at * H + unit] = active ? c : 0.f;
    }
  }

  // Steps in which no row of the group is active need no product.
  __device__ void write_idle() const {
    const float none[S] = {};
    for (int step = group.begin; step < group.end; ++step) {
      if (step >= place.first && step < place.last) continue;
      each_cell(*this, [&](int, int r) { write(time(step), r, false, 0.f, 0.f, none); });
    }
  }
};

}  // namespace seq2seq_ext::kernels::cuda::persistent
