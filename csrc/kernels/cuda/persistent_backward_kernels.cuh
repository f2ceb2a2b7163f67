// SPDX-License-Identifier: MIT
// The two backward kernels: steps from the last to the first, and what has to be waited for. At
// turn i the product with the gate gradients of turn i - 1 completes the gradient of h, and the
// gates of step last - 1 - i follow; one more turn only multiplies.
#pragma once

#include "cuda/persistent_backward.cuh"
#include "cuda/persistent_slice.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

// Blocks share the units: they publish the gate gradients, and only then write them for the
// products to come and load what the next step reads.
template <class T, class CellType, bool kWide>
struct SharedBackward
    : BackwardCells<T, CellType, SharedCells<BackwardArgs, backward_tile(kWide).units>> {
  static constexpr Tile kTile = backward_tile(kWide);
  static constexpr int kUnits = kTile.units;
  static_assert(kTile.tiles * 16 == kUnits);
  using Cells = BackwardCells<T, CellType, SharedCells<BackwardArgs, kUnits>>;
  using Cells::columns, Cells::group, Cells::H, Cells::place;
  using Product = Slice<T, kTile.tiles, kTile.resident>;
  using Sums = Partials<1, kUnits, kPassRows / 8>;
  using Inputs = typename Cells::Inputs;

  Sums sums;
  unsigned* const flags;
  uint4* const exchange;

  __device__ __forceinline__ SharedBackward(const BackwardArgs& args, const Place& place,
                                            gpu::Carver& carver)
      : Cells(args, place, carver),
        sums(carver.take<typename Sums::Vector>(2 * kWarps * Sums::kOne, 16)),
        flags(place.flags(args.group)),
        exchange(place.exchange(args.group)) {}

  // As in SharedForward.
  __device__ int slot(int turn, int pass) const {
    return ((turn * place.passes + pass) & 1) * kWarps;
  }

  __device__ __forceinline__ void multiply_pass(int turn, int pass, Product& product) {
    typename Product::Sums partial = {};
    product.run(columns(pass), partial);
    sums.put(slot(turn, pass) + int(threadIdx.x) / 32, partial, columns(pass));
    if (pass + 1 < place.passes) product.start(turn, (pass + 1) * kPassRows, columns(pass + 1));
  }

  __device__ __forceinline__ void finish_pass(int turn, int pass, Inputs& in) {
    if (turn > 0) {
      Cells::add_products(pass, [&](int r, float (&dh)[1]) {
        sums.get(slot(turn, pass), Cells::product_warps(), Cells::local_unit(),
                 r - pass * kPassRows, dh);
      });
    }
    const int step = place.last - 1 - turn;
    if (step < place.first) return;
    const bool more = pass + 1 < place.passes;
    uint4* const to = written_at(turn, exchange, group.k_blocks * 4 * group.batch_tile);
    typename Cells::Gradients gradients;
    Cells::run_cells(step, pass, in, gradients, [&](int r, int k, T gradient) {
      *exchanged<T>(to, group.batch_tile, k, r) = gradient;
    });
    if (!more && Cells::publishes()) publish(flags + place.unit_block);
    Cells::write_pass(step, pass, gradients);
    Cells::load_inputs(more ? step : step - 1, more ? pass + 1 : 0, in);
  }

  __device__ __forceinline__ void run_turn(int turn, Product& product, Inputs& in) {
    if (turn > 0) product.start(turn, 0, columns(0));
    for (int pass = 0; pass <= place.passes; ++pass) {
      const bool product_too = turn > 0 && pass < place.passes;
      if (product_too && Cells::multiplies_first()) multiply_pass(turn, pass, product);
      if (pass > 0) finish_pass(turn, pass - 1, in);
      if (product_too && !Cells::multiplies_first()) multiply_pass(turn, pass, product);
      if (product_too) __syncthreads();  // the partial sums of the pass are there
    }
  }

  __device__ __forceinline__ void run(uint4* spill) {
    Product product(group, exchange, spill, [this](int i, int k) { return this->weights(i, k); });
    const Makers makers(product.first, product.count, Cells::G, kUnits, H);
    Cells::load_state();
    Inputs in;
    Cells::load_inputs(place.last - 1, 0, in);
    const int steps = place.last - place.first;
    for (int turn = 0; turn <= steps; ++turn) {
      wait_for(flags, makers.first, makers.last, unsigned(turn * Cells::publishers()));
      run_turn(turn, product, in);
    }
    Cells::store_state();
    Cells::write_idle();
  }
};

// A block has all units.
template <class T, class CellType>
struct WholeBackward : BackwardCells<T, CellType, WholeCells<BackwardArgs>> {
  using Cells = BackwardCells<T, CellType, WholeCells<BackwardArgs>>;
  static constexpr int G = Cells::G;
  static constexpr int kBlocks = G * kWholeUnits / 32;
  static constexpr int kBuffer = G * kWholeUnits / 8 * kWholeRows;
  static constexpr int kChains = 4;  // of sums: one after another would wait for the last product
  using Cells::group, Cells::H, Cells::place, Cells::unit;
  using Sums = Partials<1, kWarpUnits, 1>;
  using Inputs = typename Cells::Inputs;

  Sums sums;
  uint4* const exchange;  // (2, G H / 8, row) of eight gate gradients

  __device__ __forceinline__ WholeBackward(const BackwardArgs& args, const Place& place,
                                           gpu::Carver& carver)
      : Cells(args, place, carver),
        sums(carver.take<typename Sums::Vector>(kWarps * Sums::kOne, 16)),
        exchange(carver.take<uint4>(2 * kBuffer, 16)) {}

  // Padding of both buffers, which no step writes.
  __device__ void fill_buffers() {
    each_exchanged<Cells>([&](int r) {
      for (int gate = 0; gate < G; ++gate) {
        const int k = Cells::exchanged_index(unit, gate);
        *exchanged<T>(exchange, kWholeRows, k, r) = from_acc<T>(0.f);
        *exchanged<T>(exchange + kBuffer, kWholeRows, k, r) = from_acc<T>(0.f);
      }
    });
  }

  using Weights = uint32_t[kBlocks][2][1][4];

  __device__ __forceinline__ void multiply_turn(int turn, const Weights& weights) {
    const int lane = int(threadIdx.x) % 32;
    const uint4* from = read_at(turn, exchange, kBuffer) + lane % 4 * kWholeRows + lane / 4;
    float chains[kChains][1][1][4] = {};
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      if (i < group.k_blocks) {
        multiply<T, 1>(weights[i], from + i * 4 * kWholeRows, chains[i % kChains]);
      }
    }
#pragma unroll
    for (int chain = 1; chain < kChains; ++chain) {
#pragma unroll
      for (int e = 0; e < 4; ++e) chains[0][0][0][e] += chains[chain][0][0][e];
    }
    sums.put(int(threadIdx.x) / 32, chains[0], 1);
  }

  __device__ __forceinline__ void run() {
    Weights weights;
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      if (i < group.k_blocks) {
        load_fragments([this](int row, int k) { return this->weights(row, k); }, 0, i,
                       weights[i][0][0], weights[i][1][0]);
      }
    }
    Cells::load_state();
    fill_buffers();
    Inputs in;
    Cells::load_inputs(place.last - 1, 0, in);
    const int steps = place.last - place.first;
    for (int turn = 0; turn <= steps; ++turn) {
      __syncthreads();  // the gate gradients of the turn before are there
      if (turn > 0) {
        if (Cells::first_unit() < H) multiply_turn(turn, weights);
        __syncwarp();  // the sums are there
        Cells::add_products(0, [&](int r, float (&dh)[1]) {
          sums.get(int(threadIdx.x) / 32, 1, int(threadIdx.x) % kWarpUnits, r, dh);
        });
      }
      if (turn == steps) break;
      const int step = place.last - 1 - turn;
      uint4* const to = written_at(turn, exchange, kBuffer);
      typename Cells::Gradients gradients;
      Cells::run_cells(step, 0, in, gradients, [&](int r, int k, T gradient) {
        *exchanged<T>(to, kWholeRows, k, r) = gradient;
      });
      Cells::write_pass(step, 0, gradients);
      Cells::load_inputs(step - 1, 0, in);
    }
    Cells::store_state();
    Cells::write_idle();
  }
};

template <class T, class CellType, bool kWide>
__global__ void __launch_bounds__(kThreads, 1)
    shared_backward_kernel(const __grid_constant__ BackwardArgs args) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  using Block = SharedBackward<T, CellType, kWide>;
  Block block(args, Place(args.group, args.reverse), carver);
  block.run(carver.take<uint4>(Block::Product::spilled_vectors(args.group), 16));
}

template <class T, class CellType>
__global__ void __launch_bounds__(kThreads, 1)
    whole_backward_kernel(const __grid_constant__ BackwardArgs args) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  WholeBackward<T, CellType>(args, Place(args.group, args.reverse), carver).run();
}

template <class T, class CellType>
Kernel<BackwardArgs> backward_kernel_of(int unit_tile) {
  if (unit_tile == kWholeUnits) return whole_backward_kernel<T, CellType>;
  return unit_tile == backward_tile(true).units ? shared_backward_kernel<T, CellType, true>
                                                : shared_backward_kernel<T, CellType, false>;
}

template <class CellType>
Kernel<BackwardArgs> backward_kernel(bool bfloat16, int unit_tile) {
  return bfloat16 ? backward_kernel_of<bf16, CellType>(unit_tile)
                  : backward_kernel_of<fp16, CellType>(unit_tile);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
