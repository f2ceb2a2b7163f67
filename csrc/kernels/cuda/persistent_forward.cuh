// SPDX-License-Identifier: MIT
// The persistent forward recurrence (persistent.cuh has the idea). A step of a block: wait for the
// h that its warps multiply, multiply, add the partial sums, run the gates, publish the new h, and
// only then write what others do not wait for and load what the next step adds.
#pragma once

#include "cuda/gates.cuh"
#include "cuda/persistent.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class T, class CellType>
struct Forward {
  static constexpr int G = CellType::kGates;
  static constexpr Tile kTile = forward_tile(G);
  static constexpr int kUnits = kTile.units;
  static constexpr int kCells = kUnits * kPassRows / kThreads;  // of a thread, in a pass
  static constexpr int kCellRows = kThreads / kUnits;           // batch rows between them
  static_assert(kTile.tiles * 16 == kUnits * G && kCells * kThreads == kUnits * kPassRows);
  using Product = Slice<T, kTile.tiles, kTile.resident, kTile.depth>;
  using Sums = Partials<G, kUnits>;

  // Each entry has one thread, which alone uses it.
  struct State {
    float *h, *c;   // (batch row of the group, unit)
    int* length;    // likewise
    float* biases;  // (2 G, thread)
  };

  const ForwardArgs& args;
  const Group& group;
  const ForwardArgs::Direction& direction;
  const Place place;
  const int column_base;  // of y
  const bool reverse;
  const int H, unit;  // this thread's, in all of its cells
  const bool has_unit;
  State state;

  __device__ Forward(const ForwardArgs& a, const Place& p)
      : args(a),
        group(a.group),
        direction(a.direction[p.direction]),
        place(p),
        column_base(p.direction * int(a.group.H)),
        reverse(a.reverse[p.direction]),
        H(a.group.H),
        unit(p.unit_block * kUnits + int(threadIdx.x) % kUnits),
        has_unit(unit < H) {}

  // Batch row, within the group, of cell i of a pass; its entry in the state.
  __device__ static int row(int pass, int i) {
    return pass * kPassRows + int(threadIdx.x) / kUnits + i * kCellRows;
  }
  __device__ static int entry(int r) { return r * kUnits + int(threadIdx.x) % kUnits; }
  __device__ int time(int step) const { return reverse ? group.T - 1 - step : step; }
  __device__ bool has_cell(int r) const { return has_unit && r < place.rows; }

  __device__ void load_state() {
    for (int pass = 0; pass < place.passes; ++pass) {
      for (int i = 0; i < kCells; ++i) {
        const int r = row(pass, i);
        if (!has_cell(r)) continue;
        const int64_t b = place.first_row + r;
        state.h[entry(r)] = to_acc(static_cast<const T*>(direction.h)[b * H + unit]);
        if constexpr (CellType::kHasCell) {
          state.c[entry(r)] = static_cast<const float*>(direction.c)[b * H + unit];
        }
        state.length[entry(r)] = Place::row_length(group, int(b));
      }
    }
  }

  // `values`: b_ih or b_hh; `side` 0 or 1.
  __device__ void load_biases(const void* values, int side) {
    for (int gate = 0; gate < G; ++gate) {
      const bool has = values != nullptr && has_unit;
      state.biases[(side * G + gate) * kThreads + int(threadIdx.x)] =
          has ? to_acc(static_cast<const T*>(values)[int64_t(gate) * H + unit]) : 0.f;
    }
  }
  __device__ __forceinline__ void add_biases(int side, float (&sums)[G]) const {
#pragma unroll
    for (int gate = 0; gate < G; ++gate) {
      sums[gate] += state.biases[(side * G + gate) * kThreads + int(threadIdx.x)];
    }
  }

  __device__ void store_state() const {
    for (int pass = 0; pass < place.passes; ++pass) {
      for (int i = 0; i < kCells; ++i) {
        const int r = row(pass, i);
        if (!has_cell(r)) continue;
        const int64_t b = place.first_row + r;
        static_cast<T*>(direction.h)[b * H + unit] = from_acc<T>(state.h[entry(r)]);
        if constexpr (CellType::kHasCell) {
          static_cast<float*>(direction.c)[b * H + unit] = state.c[entry(r)];
        }
      }
    }
  }

  // Eight values of W_hh for the product; row i * 8 + g of the block is gate i % G of unit
  // 8 (i / G) + g.
  __device__ uint4 weights(int i, int k) const {
    const int of_unit = place.unit_block * kUnits + i / G * 8 + int(threadIdx.x) % 32 / 4;
    const T* from = static_cast<const T*>(direction.weights.w_hh);
    const bool in = of_unit < H;
    return eight_values(from + (int64_t(i % G) * H + (in ? of_unit : 0)) * H, k, in ? H : 0);
  }

  using Parts = float[kCells][G];

  // What x adds in a pass of a step.
  __device__ __forceinline__ void load_x(int step, int pass, Parts& x) const {
    if (step >= place.last) return;
    const int t = time(step);
    const int64_t index = reverse ? t - (group.T - group.end) : t - group.begin;
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int r = row(pass, i);
      const float* from = static_cast<const float*>(direction.x_parts) +
                          (index * group.B + place.first_row + r) * G * H + unit;
#pragma unroll
      for (int gate = 0; gate < G; ++gate)
        x[i][gate] = has_cell(r) ? __ldcs(from + int64_t(gate) * H) : 0.f;
    }
  }

  // A cell's results as others read them; zeros where the row is inactive.
  __device__ __forceinline__ void write(int64_t t, int r, bool active, float h, float c,
                                        const float (&saved)[CellType::kSaved]) const {
    const int64_t b = place.first_row + r;
    static_cast<T*>(args.y)[t * args.y_stride_t + b * args.y_stride_b + column_base + unit] =
        from_acc<T>(active ? h : 0.f);
    if (direction.saved_gates == nullptr) return;
    T* to =
        static_cast<T*>(direction.saved_gates) + (t * group.B + b) * CellType::kSaved * H + unit;
#pragma unroll
    for (int s = 0; s < CellType::kSaved; ++s)
      to[int64_t(s) * H] = from_acc<T>(active ? saved[s] : 0.f);
    if constexpr (CellType::kHasCell) {
      static_cast<float*>(direction.saved_cells)[(t * group.B + b) * H + unit] = active ? c : 0.f;
    }
  }

  // Steps in which no row of the group is active need no product.
  __device__ void write_idle(int from, int to) const {
    const float none[CellType::kSaved] = {};
    for (int step = from; step < to; ++step) {
      for (int pass = 0; pass < place.passes; ++pass) {
        for (int i = 0; i < kCells; ++i) {
          const int r = row(pass, i);
          if (has_cell(r)) write(time(step), r, false, 0.f, 0.f, none);
        }
      }
    }
  }

  __device__ __forceinline__ void multiply(Product& product, Sums& sums, int columns) const {
    typename Product::Sums partial = {};
    if (columns == 2) {
      product.template run<2>(partial);
    } else {
      product.template run<1>(partial);
    }
    sums.put(partial, columns);
  }

  __device__ void run(unsigned char* memory) {
    gpu::Carver carver(memory);
    Sums sums(carver.take<typename Sums::Vector>(Sums::kVectors, 16));
    const int entries = (group.batch_tile + kPassRows - 1) / kPassRows * kPassRows * kUnits;
    state.h = carver.take<float>(entries);
    state.c = carver.take<float>(entries);
    state.length = carver.take<int>(entries);
    state.biases = carver.take<float>(2 * G * kThreads);
    Product product(group, carver.take<uint4>(kWarps * group.spilled * 2 * kTile.tiles * 32, 16),
                    [this](int i, int k) { return weights(i, k); });
    load_state();
    load_biases(direction.weights.b_ih, 0);
    load_biases(direction.weights.b_hh, 1);

    const int warp = int(threadIdx.x) / 32;
    // Warps that have cells publish; blocks that make the h of this warp's slice.
    const int cell_warps = kUnits * 8 * (place.column_tiles > 1 ? 2 : 1) / 32;
    const unsigned publishers = cell_warps < kWarps ? cell_warps : kWarps;
    const int first_maker = product.first * 32 / kUnits;
    const int behind = (product.first + product.count) * 32;
    const int last_maker = product.count == 0 ? -1 : ((behind < H ? behind : H) - 1) / kUnits;
    const int product_warps = (group.k_blocks + group.warp_k_blocks - 1) / group.warp_k_blocks;

    Parts x;
    load_x(place.first, 0, x);
    for (int step = place.first; step < place.last; ++step) {
      const int turn = step - place.first;
      const int t = time(step);
      wait_for(place.flags, first_maker, last_maker, unsigned(turn) * publishers);
      const uint4* from = place.buffer(group, turn);
      uint4* to = place.buffer(group, turn + 1);
      product.start(from, 0, place.column_tiles > 1 ? 2 : 1);
      for (int pass = 0; pass < place.passes; ++pass) {
        const int columns = place.column_tiles - 2 * pass > 1 ? 2 : 1;
        multiply(product, sums, columns);
        const bool more = pass + 1 < place.passes;
        if (more) {
          product.start(from, (pass + 1) * kPassRows, place.column_tiles - 2 * pass > 3 ? 2 : 1);
        }
        __syncthreads();  // the partial sums are there
        float h[kCells], c[kCells], saved[kCells][CellType::kSaved];
        bool active[kCells];
#pragma unroll
        for (int i = 0; i < kCells; ++i) {
          const int r = row(pass, i);
          if (!has_cell(r)) continue;
          float h_sums[G];
          sums.get(int(threadIdx.x) % kUnits, r - pass * kPassRows, product_warps, h_sums);
          const float h_prev = state.h[entry(r)];
          float c_next = CellType::kHasCell ? state.c[entry(r)] : 0.f;
          add_biases(0, x[i]);
          add_biases(1, h_sums);
          const T h_next = from_acc<T>(CellType::forward(x[i], h_sums, h_prev, c_next, saved[i]));
          active[i] = t < state.length[entry(r)];
          if (active[i]) {
            state.h[entry(r)] = to_acc(h_next);
            if (CellType::kHasCell) state.c[entry(r)] = c_next;
          }
          h[i] = active[i] ? to_acc(h_next) : h_prev;
          c[i] = c_next;
          *exchanged<T>(to, group, unit, r) = from_acc<T>(h[i]);
        }
        if (!more && step + 1 < place.last && warp < int(publishers)) {
          publish(place.flags + place.unit_block);
        }
        sums.next();
#pragma unroll
        for (int i = 0; i < kCells; ++i) {
          const int r = row(pass, i);
          if (has_cell(r)) write(t, r, active[i], h[i], c[i], saved[i]);
        }
        load_x(more ? step : step + 1, more ? pass + 1 : 0, x);
      }
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
  const Place place(args.group, args.reverse);
  Forward<T, CellType>(args, place).run(memory);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
