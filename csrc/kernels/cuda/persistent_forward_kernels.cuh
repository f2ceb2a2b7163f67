// SPDX-License-Identifier: MIT
// The two forward kernels: steps, and what has to be waited for.
#pragma once

#include "cuda/persistent_forward.cuh"
#include "cuda/persistent_slice.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

// Blocks share the units. A step: wait for the h that the warps multiply, multiply, add the partial
// sums, run the gates, publish the new h, and only then write what others do not wait for and load
// what the next step adds.
template <class T, class CellType>
struct SharedForward
    : ForwardCells<T, CellType, SharedCells<ForwardArgs, forward_tile(CellType::kGates).units>> {
  static constexpr int G = CellType::kGates;
  static constexpr Tile kTile = forward_tile(G);
  static constexpr int kUnits = kTile.units;
  static_assert(kTile.tiles * 16 == kUnits * G);
  using Cells = ForwardCells<T, CellType, SharedCells<ForwardArgs, kUnits>>;
  using Cells::columns, Cells::group, Cells::H, Cells::place, Cells::unit;
  using Product = Slice<T, kTile.tiles, kTile.resident>;
  using Sums = Partials<G, kUnits, kPassRows / 8>;
  using Parts = typename Cells::Parts;

  Sums sums;
  unsigned* const flags;
  uint4* const exchange;

  __device__ __forceinline__ SharedForward(const ForwardArgs& args, const Place& place,
                                           gpu::Carver& carver)
      : Cells(args, place, carver),
        sums(carver.take<typename Sums::Vector>(2 * kWarps * Sums::kOne, 16)),
        flags(place.flags(args.group)),
        exchange(place.exchange(args.group)) {}

  // Partial sums of a pass are in one of two sets of slots, in turn: one barrier between put() and
  // get() is then enough, since who writes a slot again has passed the next barrier, before which
  // all had read it.
  __device__ int slot(int turn, int pass) const {
    return ((turn * place.passes + pass) & 1) * kWarps;
  }

  __device__ __forceinline__ void multiply_pass(int turn, int pass, Product& product) {
    typename Product::Sums partial = {};
    product.run(columns(pass), partial);
    sums.put(slot(turn, pass) + int(threadIdx.x) / 32, partial, columns(pass));
    if (pass + 1 < place.passes) product.start(turn, (pass + 1) * kPassRows, columns(pass + 1));
  }

  __device__ __forceinline__ void finish_pass(int step, int pass, Parts& x) {
    const int turn = step - place.first;
    const bool more = pass + 1 < place.passes;
    uint4* const to = written_at(turn, exchange, group.k_blocks * 4 * group.batch_tile);
    typename Cells::Results results;
    Cells::run_cells(
        step, pass, x, results,
        [&](int r, float (&h_sums)[G]) {
          sums.get(slot(turn, pass), Cells::product_warps(), Cells::local_unit(),
                   r - pass * kPassRows, h_sums);
        },
        [&](int r, T h) { *exchanged<T>(to, group.batch_tile, unit, r) = h; });
    if (!more && step + 1 < place.last && Cells::publishes()) publish(flags + place.unit_block);
    Cells::write_pass(step, pass, results);
    Cells::load_x(more ? step : step + 1, more ? pass + 1 : 0, x);
  }

  // x: of pass 0 of this step, then of the next.
  __device__ __forceinline__ void run_step(int step, Product& product, Parts& x) {
    const int turn = step - place.first;
    product.start(turn, 0, columns(0));
    for (int pass = 0; pass <= place.passes; ++pass) {
      const bool last = pass == place.passes;
      if (!last && Cells::multiplies_first()) multiply_pass(turn, pass, product);
      if (pass > 0) finish_pass(step, pass - 1, x);
      if (!last && !Cells::multiplies_first()) multiply_pass(turn, pass, product);
      if (!last) __syncthreads();  // the partial sums of the pass are there
    }
  }

  __device__ __forceinline__ void run(uint4* spill) {
    Product product(group, exchange, spill, [this](int i, int k) { return this->weights(i, k); });
    const Makers makers(product.first, product.count, 1, kUnits, H);
    Cells::load_state();
    Parts x;
    Cells::load_x(place.first, 0, x);
    for (int step = place.first; step < place.last; ++step) {
      const int turn = step - place.first;
      wait_for(flags, makers.first, makers.last, unsigned(turn * Cells::publishers()));
      run_step(step, product, x);
    }
    Cells::store_state();
    Cells::write_idle();
  }
};

// A block has all units. A step: one barrier behind which h is there, multiply, run the gates.
template <class T, class CellType>
struct WholeForward : ForwardCells<T, CellType, WholeCells<ForwardArgs>> {
  static constexpr int G = CellType::kGates;
  static constexpr int kTiles = G * kWarpUnits / 16, kBlocks = kWholeUnits / 32;
  static constexpr int kBuffer = kWholeUnits / 8 * kWholeRows;
  using Cells = ForwardCells<T, CellType, WholeCells<ForwardArgs>>;
  using Cells::group, Cells::H, Cells::place, Cells::unit;
  using Sums = Partials<G, kWarpUnits, 1>;
  using Parts = typename Cells::Parts;

  Sums sums;
  uint4* const exchange;  // (2, H / 8, row) of eight values of h

  __device__ __forceinline__ WholeForward(const ForwardArgs& args, const Place& place,
                                          gpu::Carver& carver)
      : Cells(args, place, carver),
        sums(carver.take<typename Sums::Vector>(kWarps * Sums::kOne, 16)),
        exchange(carver.take<uint4>(2 * kBuffer, 16)) {}

  // The first holds h; padding of both, which no step writes, is zero.
  __device__ void fill_buffers() {
    each_exchanged<Cells>([&](int r) {
      const T h = from_acc<T>(Cells::has_cell(r) ? Cells::h_state[Cells::entry(r)] : 0.f);
      *exchanged<T>(exchange, kWholeRows, unit, r) = h;
      *exchanged<T>(exchange + kBuffer, kWholeRows, unit, r) = from_acc<T>(0.f);
    });
  }

  __device__ __forceinline__ void run() {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    uint32_t weights[kBlocks][2][kTiles][4];
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      if (i < group.k_blocks) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          load_fragments([this](int row, int k) { return this->weights(row, k); }, tile, i,
                         weights[i][0][tile], weights[i][1][tile]);
        }
      }
    }
    Cells::load_state();
    fill_buffers();
    Parts x;
    Cells::load_x(place.first, 0, x);
    for (int step = place.first; step < place.last; ++step) {
      const int turn = step - place.first;
      const uint4* from = read_at(turn, exchange, kBuffer) + lane % 4 * kWholeRows + lane / 4;
      uint4* const to = written_at(turn, exchange, kBuffer);
      __syncthreads();  // h is there
      if (Cells::first_unit() < H) {
        float partial[kTiles][1][4] = {};
#pragma unroll
        for (int i = 0; i < kBlocks; ++i) {
          if (i < group.k_blocks) multiply<T, 1>(weights[i], from + i * 4 * kWholeRows, partial);
        }
        sums.put(warp, partial, 1);
      }
      __syncwarp();  // the sums are there
      typename Cells::Results results;
      Cells::run_cells(
          step, 0, x, results,
          [&](int r, float (&h_sums)[G]) { sums.get(warp, 1, lane % kWarpUnits, r, h_sums); },
          [&](int r, T h) { *exchanged<T>(to, kWholeRows, unit, r) = h; });
      Cells::write_pass(step, 0, results);
      Cells::load_x(step + 1, 0, x);
    }
    Cells::store_state();
    Cells::write_idle();
  }
};

template <class T, class CellType>
__global__ void __launch_bounds__(kThreads, 1)
    shared_forward_kernel(const __grid_constant__ ForwardArgs args) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  using Block = SharedForward<T, CellType>;
  Block block(args, Place(args.group, args.reverse), carver);
  block.run(carver.take<uint4>(Block::Product::spilled_vectors(args.group), 16));
}

template <class T, class CellType>
__global__ void __launch_bounds__(kThreads, 1)
    whole_forward_kernel(const __grid_constant__ ForwardArgs args) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  WholeForward<T, CellType>(args, Place(args.group, args.reverse), carver).run();
}

template <class T, class CellType>
Kernel<ForwardArgs> forward_kernel_of(int unit_tile) {
  return unit_tile == kWholeUnits ? whole_forward_kernel<T, CellType>
                                  : shared_forward_kernel<T, CellType>;
}

template <class CellType>
Kernel<ForwardArgs> forward_kernel(bool bfloat16, int unit_tile) {
  return bfloat16 ? forward_kernel_of<bf16, CellType>(unit_tile)
                  : forward_kernel_of<fp16, CellType>(unit_tile);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
