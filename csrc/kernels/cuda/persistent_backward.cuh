// SPDX-License-Identifier: MIT
// The persistent backward recurrence (persistent.cuh has the idea), from the last step to the
// first. A block completes the gradient of its units' h: a product of W_hh^T with the gate
// gradients that all blocks made at the step after. It goes back through its gates, publishes
// their gradients, and only then writes them for the products to come and loads what the next step
// reads.
#pragma once

#include "cuda/persistent_cells.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class T, class CellType, bool kWide>
struct Backward : Cells<BackwardArgs, backward_tile(kWide).units> {
  static constexpr int G = CellType::kGates, S = CellType::kSaved;
  static constexpr int kFirstHidden = S - G;  // of the gate gradients, those of W_hh's rows
  static constexpr Tile kTile = backward_tile(kWide);
  static constexpr int kUnits = kTile.units;
  using Base = Cells<BackwardArgs, kUnits>;
  using Base::args, Base::group, Base::direction, Base::place, Base::reverse, Base::H, Base::unit;
  using Base::columns, Base::each_cell, Base::has_cell, Base::time;
  using Base::kCells, Base::row, Base::entry, Base::entries, Base::batch_row;
  using Product = Slice<T, kTile.tiles, kTile.resident>;
  using Sums = Partials<1, kUnits>;

  Sums sums;

  // Gradients of h, so far as they bypass W_hh, and of c. In shared memory; each entry has one
  // thread.
  float *dh_state, *dc_state;
  int* length;

  __device__ void load_state() {
    each_cell([&](int at, int r) {
      const int64_t from = batch_row(r) * H + unit;
      dh_state[at] = static_cast<const float*>(direction.dh)[from];
      if (CellType::kHasCell) dc_state[at] = static_cast<const float*>(direction.dc)[from];
      length[at] = Place::row_length(group, int(batch_row(r)));
    });
  }
  __device__ void store_state() const {
    each_cell([&](int at, int r) {
      const int64_t to = batch_row(r) * H + unit;
      static_cast<float*>(direction.dh)[to] = dh_state[at];
      if (CellType::kHasCell) static_cast<float*>(direction.dc)[to] = dc_state[at];
    });
  }

  // Eight values of W_hh^T for the product; row i * 8 + g of the block is a unit. K runs over eight
  // units of gate 0, of gate 1, ..., then the next eight units: what a block makes is in one piece.
  __device__ static int exchanged_index(int of_unit, int gate) {
    return (of_unit / 8 * G + gate) * 8 + of_unit % 8;
  }
  __device__ uint4 weights(int i, int k) const {
    const int column = place.unit_block * kUnits + i * 8 + int(threadIdx.x) % 32 / 4;
    const int gate = k / 8 % G, first = k / 8 / G * 8;
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

  using Gradients = T[kCells][S];

  // Back through the gates of a pass's cells; the gradients of W_hh's gates go to the other blocks.
  __device__ __forceinline__ void run_cells(int step, int pass, const Inputs& in,
                                            Gradients& gradients) {
    const int t = time(step);
    uint4* const to = place.buffer(group, place.last - 1 - step);
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
        if (s >= kFirstHidden) {
          *exchanged<T>(to, group, exchanged_index(unit, s - kFirstHidden), r) = gradients[i][s];
        }
      }
    }
  }

  // What came through W_hh joins what bypassed it.
  __device__ __forceinline__ void add_products(int turn, int pass) {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      if (!has_cell(r)) continue;
      float dh[1];
      sums.get(turn * place.passes + pass, Base::local_unit(), r - pass * kPassRows,
               Base::product_warps(), dh);
      dh_state[entry(r)] += dh[0];
    }
  }

  __device__ __forceinline__ void write(int step, int pass, const Gradients& gradients) const {
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
  __device__ void write_idle(int from, int to) const {
    Gradients none;
    for (int i = 0; i < kCells; ++i) {
      for (int s = 0; s < S; ++s) none[i][s] = from_acc<T>(0.f);
    }
    for (int step = from; step < to; ++step) {
      for (int pass = 0; pass < place.passes; ++pass) write(step, pass, none);
    }
  }

  __device__ __forceinline__ void multiply(int turn, int pass, Product& product) {
    typename Product::Sums partial = {};
    product.run(columns(pass), partial);
    sums.put(turn * place.passes + pass, partial, columns(pass));
    if (pass + 1 < place.passes) product.start(turn, (pass + 1) * kPassRows, columns(pass + 1));
  }

  __device__ __forceinline__ void finish_pass(int turn, int pass, Inputs& in) {
    if (turn > 0) add_products(turn, pass);
    const int step = place.last - 1 - turn;
    if (step < place.first) return;
    const bool more = pass + 1 < place.passes;
    Gradients gradients;
    run_cells(step, pass, in, gradients);
    if (!more && Base::publishes()) publish(place.flags + place.unit_block);
    write(step, pass, gradients);
    load_inputs(more ? step : step - 1, more ? pass + 1 : 0, in);
  }

  // The product with the gradients of the turn before, if there is one; then the step itself,
  // unless it is before the first.
  __device__ __forceinline__ void run_turn(int turn, Product& product, Inputs& in) {
    if (turn > 0) product.start(turn, 0, columns(0));
    for (int pass = 0; pass <= place.passes; ++pass) {
      const bool product_too = turn > 0 && pass < place.passes;
      if (product_too && Base::multiplies_first()) multiply(turn, pass, product);
      if (pass > 0) finish_pass(turn, pass - 1, in);
      if (product_too && !Base::multiplies_first()) multiply(turn, pass, product);
      if (product_too) __syncthreads();  // the partial sums of the pass are there
    }
  }

  __device__ __forceinline__ Backward(const BackwardArgs& args, const Place& place,
                                      gpu::Carver& carver)
      : Base(args, place), sums(carver.take<typename Sums::Vector>(Sums::kVectors, 16)) {
    dh_state = carver.take<float>(entries());
    dc_state = carver.take<float>(entries());
    length = carver.take<int>(entries());
  }

  __device__ __forceinline__ void run(uint4* spill) {
    Product product(group, place.exchange, spill, [this](int i, int k) { return weights(i, k); });
    const Makers makers(product.first, product.count, G, kUnits, H);
    load_state();

    Inputs in;
    load_inputs(place.last - 1, 0, in);
    const int steps = place.last - place.first;
    for (int turn = 0; turn <= steps; ++turn) {
      wait_for(place.flags, makers.first, makers.last, unsigned(turn * Base::publishers()));
      run_turn(turn, product, in);
    }
    store_state();
    write_idle(group.begin, place.first);
    write_idle(place.last, group.end);
  }
};

template <class T, class CellType, bool kWide>
__global__ void __launch_bounds__(kThreads, 1)
    persistent_backward_kernel(const __grid_constant__ BackwardArgs args) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  using Block = Backward<T, CellType, kWide>;
  Block block(args, Place(args.group, args.reverse), carver);
  block.run(carver.take<uint4>(Block::Product::spilled_vectors(args.group), 16));
}

template <class CellType>
Kernel<BackwardArgs> backward_kernel(bool bfloat16, bool wide) {
  if (bfloat16) {
    return wide ? persistent_backward_kernel<bf16, CellType, true>
                : persistent_backward_kernel<bf16, CellType, false>;
  }
  return wide ? persistent_backward_kernel<fp16, CellType, true>
              : persistent_backward_kernel<fp16, CellType, false>;
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
