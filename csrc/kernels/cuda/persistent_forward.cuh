// SPDX-License-Identifier: MIT
// The persistent forward recurrence (persistent.cuh has the idea). A step of a block: wait for the
// h that its warps multiply, multiply, add the partial sums, run the gates, publish the new h, and
// only then write what others do not wait for and load what the next step adds.
#pragma once

#include "cuda/persistent_cells.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class T, class CellType>
struct Forward : Cells<ForwardArgs, forward_tile(CellType::kGates).units> {
  static constexpr int G = CellType::kGates, S = CellType::kSaved;
  static constexpr Tile kTile = forward_tile(G);
  static constexpr int kUnits = kTile.units;
  static_assert(kTile.tiles * 16 == kUnits * G);
  using Base = Cells<ForwardArgs, kUnits>;
  using Base::args, Base::group, Base::direction, Base::place, Base::reverse, Base::H, Base::unit;
  using Base::columns, Base::each_cell, Base::has_cell, Base::time;
  using Base::has_unit, Base::kCells, Base::row, Base::entry, Base::entries, Base::batch_row;
  using Product = Slice<T, kTile.tiles, kTile.resident>;
  using Sums = Partials<G, kUnits>;

  Sums sums;

  // In shared memory, for it is free there and registers are not. Each entry has one thread.
  float *h_state, *c_state;
  int* length;
  float* biases;  // (2 G, thread)

  __device__ void load_state() {
    each_cell([&](int at, int r) {
      const int64_t from = batch_row(r) * H + unit;
      h_state[at] = to_acc(static_cast<const T*>(direction.h)[from]);
      if (CellType::kHasCell) c_state[at] = static_cast<const float*>(direction.c)[from];
      length[at] = Place::row_length(group, int(batch_row(r)));
    });
    load_biases(direction.weights.b_ih, 0);
    load_biases(direction.weights.b_hh, 1);
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

  __device__ void store_state() const {
    each_cell([&](int at, int r) {
      const int64_t to = batch_row(r) * H + unit;
      static_cast<T*>(direction.h)[to] = from_acc<T>(h_state[at]);
      if (CellType::kHasCell) static_cast<float*>(direction.c)[to] = c_state[at];
    });
  }

  // Eight values of W_hh for the product; row i * 8 + g of the block is gate i % G of unit
  // 8 (i / G) + g.
  __device__ uint4 weights(int i, int k) const {
    const int of_unit = place.unit_block * kUnits + i / G * 8 + int(threadIdx.x) % 32 / 4;
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
      const float* from = static_cast<const float*>(direction.x_parts) +
                          (index * group.B + batch_row(r)) * G * H + unit;
#pragma unroll
      for (int gate = 0; gate < G; ++gate) {
        x[i][gate] = has_cell(r) ? __ldcs(from + int64_t(gate) * H) : 0.f;
      }
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
  __device__ void write_idle(int from, int to) const {
    const float none[S] = {};
    for (int step = from; step < to; ++step) {
      each_cell([&](int, int r) { write(time(step), r, false, 0.f, 0.f, none); });
    }
  }

  struct Results {
    float h[kCells], c[kCells], saved[kCells][S];
    bool active[kCells];
  };

  // From the sums of a pass to the new h, which goes to the other blocks.
  __device__ __forceinline__ void run_cells(int step, int pass, Parts& x, Results& results) {
    const int turn = step - place.first;
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      const int at = entry(r);
      float h_sums[G];
      sums.get(turn * place.passes + pass, Base::local_unit(), r - pass * kPassRows,
               Base::product_warps(), h_sums);
      add_biases(0, x[i]);
      add_biases(1, h_sums);
      const float h_prev = h_state[at];
      float c = CellType::kHasCell ? c_state[at] : 0.f;
      const T h = from_acc<T>(CellType::forward(x[i], h_sums, h_prev, c, results.saved[i]));
      results.active[i] = time(step) < length[at];
      results.c[i] = c;
      results.h[i] = results.active[i] ? to_acc(h) : h_prev;
      *exchanged<T>(place.buffer(group, turn), group, unit, r) = from_acc<T>(results.h[i]);
      if (!results.active[i]) continue;
      h_state[at] = results.h[i];
      if (CellType::kHasCell) c_state[at] = c;
    }
  }

  __device__ __forceinline__ void finish_pass(int step, int pass, Parts& x) {
    const bool more = pass + 1 < place.passes;
    Results results;
    run_cells(step, pass, x, results);
    if (!more && step + 1 < place.last && Base::publishes()) {
      publish(place.flags + place.unit_block);
    }
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      write(time(step), r, results.active[i], results.h[i], results.c[i], results.saved[i]);
    }
    load_x(more ? step : step + 1, more ? pass + 1 : 0, x);
  }

  __device__ __forceinline__ void multiply(int step, int pass, Product& product) {
    const int turn = step - place.first;
    typename Product::Sums partial = {};
    product.run(columns(pass), partial);
    sums.put(turn * place.passes + pass, partial, columns(pass));
    if (pass + 1 < place.passes) product.start(turn, (pass + 1) * kPassRows, columns(pass + 1));
  }

  // x: of pass 0 of this step, then of the next.
  __device__ __forceinline__ void run_step(int step, Product& product, Parts& x) {
    product.start(step - place.first, 0, columns(0));
    for (int pass = 0; pass <= place.passes; ++pass) {
      const bool last = pass == place.passes;
      if (!last && Base::multiplies_first()) multiply(step, pass, product);
      if (pass > 0) finish_pass(step, pass - 1, x);
      if (!last && !Base::multiplies_first()) multiply(step, pass, product);
      if (!last) __syncthreads();  // the partial sums of the pass are there
    }
  }

  __device__ __forceinline__ Forward(const ForwardArgs& args, const Place& place,
                                     gpu::Carver& carver)
      : Base(args, place), sums(carver.take<typename Sums::Vector>(Sums::kVectors, 16)) {
    h_state = carver.take<float>(entries());
    c_state = carver.take<float>(entries());
    length = carver.take<int>(entries());
    biases = carver.take<float>(2 * G * kThreads);
  }

  __device__ __forceinline__ void run(uint4* spill) {
    Product product(group, place.exchange, spill, [this](int i, int k) { return weights(i, k); });
    const Makers makers(product.first, product.count, 1, kUnits, H);
    load_state();

    Parts x;
    load_x(place.first, 0, x);
    for (int step = place.first; step < place.last; ++step) {
      const int turn = step - place.first;
      wait_for(place.flags, makers.first, makers.last, unsigned(turn * Base::publishers()));
      run_step(step, product, x);
    }
    store_state();
    write_idle(group.begin, place.first);
    write_idle(place.last, group.end);
  }
};

template <class T, class CellType>
__global__ void __launch_bounds__(kThreads, 1)
    persistent_forward_kernel(const __grid_constant__ ForwardArgs args) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  using Block = Forward<T, CellType>;
  Block block(args, Place(args.group, args.reverse), carver);
  block.run(carver.take<uint4>(Block::Product::spilled_vectors(args.group), 16));
}

template <class CellType>
Kernel<ForwardArgs> forward_kernel(bool bfloat16) {
  return bfloat16 ? persistent_forward_kernel<bf16, CellType>
                  : persistent_forward_kernel<fp16, CellType>;
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
