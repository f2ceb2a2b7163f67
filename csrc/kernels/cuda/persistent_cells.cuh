// SPDX-License-Identifier: MIT
// How the cells of a block, (unit, batch row) pairs, are handed out to its threads, which is the
// same forwards and backwards. A thread has one unit, and in each pass a few rows of it.
#pragma once

#include "cuda/gates.cuh"
#include "cuda/persistent.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class Args_>
struct CellsOf {
  using Args = Args_;

  const Args& args;
  const Group& group;
  const typename Args::Direction& direction;
  const Place place;
  const bool reverse;
  const int H, unit;
  const bool has_unit;

  __device__ CellsOf(const Args& a, const Place& p, int u)
      : args(a),
        group(a.group),
        direction(a.direction[p.direction]),
        place(p),
        reverse(a.reverse[p.direction]),
        H(a.group.H),
        unit(u),
        has_unit(unit < H) {}

  __device__ int64_t batch_row(int r) const { return place.first_row + r; }
  __device__ bool has_cell(int r) const { return has_unit && r < place.rows; }
  __device__ int time(int step) const { return reverse ? group.T - 1 - step : step; }
};

// Several blocks share the units, kUnits each; a pass takes 16 batch rows.
template <class Args, int kUnits>
struct SharedCells : CellsOf<Args> {
  static constexpr int kCells = kUnits * kPassRows / kThreads;  // of a thread, in a pass
  static constexpr int kCellRows = kThreads / kUnits;           // between them
  static_assert(kCells * kThreads == kUnits * kPassRows);
  using CellsOf<Args>::group, CellsOf<Args>::place;

  __device__ SharedCells(const Args& a, const Place& p)
      : CellsOf<Args>(a, p, p.unit_block * kUnits + local_unit()) {}

  __device__ static int local_unit() { return int(threadIdx.x) % kUnits; }
  // The unit of a lane's rows of weights, in each set of eight units.
  __device__ int weight_unit(int set) const {
    return place.unit_block * kUnits + set * 8 + int(threadIdx.x) % 32 / 4;
  }

  // Cell i of a pass: its row in the group; the entry that it alone uses in an array of all cells.
  __device__ int passes() const { return place.passes; }
  __device__ static int row(int pass, int i) {
    return pass * kPassRows + int(threadIdx.x) / kUnits + i * kCellRows;
  }
  __device__ static int entry(int r) { return r * kUnits + local_unit(); }
  __device__ int entries() const {
    return (group.batch_tile + kPassRows - 1) / kPassRows * kPassRows * kUnits;
  }

  // Sets of eight batch rows that a pass multiplies.
  __device__ int columns(int pass) const { return place.column_tiles - 2 * pass > 1 ? 2 : 1; }

  // Warps that have cells, of which each publishes once a step.
  __device__ int publishers() const {
    const int warps = kUnits * 8 * columns(0) / 32;
    return warps < kWarps ? warps : kWarps;
  }
  __device__ bool publishes() const { return int(threadIdx.x) / 32 < publishers(); }

  // While one half of the warps multiplies, the other is at the gates of the pass before.
  __device__ static bool multiplies_first() { return int(threadIdx.x) / 32 < kWarps / 2; }

  // Warps whose slice of the product is not empty.
  __device__ int product_warps() const {
    return (group.k_blocks + group.warp_k_blocks - 1) / group.warp_k_blocks;
  }
};

// A block has all units, a warp 16 of them; up to kWholeRows batch rows, in one pass.
template <class Args>
struct WholeCells : CellsOf<Args> {
  static constexpr int kCells = kWarpUnits * kWholeRows / 32;  // of a thread
  using CellsOf<Args>::place;

  __device__ WholeCells(const Args& a, const Place& p)
      : CellsOf<Args>(a, p, first_unit() + int(threadIdx.x) % kWarpUnits) {}

  __device__ static int first_unit() { return int(threadIdx.x) / 32 * kWarpUnits; }
  __device__ static int weight_unit(int set) {
    return first_unit() + set * 8 + int(threadIdx.x) % 32 / 4;
  }

  __device__ static int passes() { return 1; }
  __device__ static int row(int, int i) {
    return int(threadIdx.x) % 32 / kWarpUnits + i * (32 / kWarpUnits);
  }
  __device__ static int entry(int r) {
    return r * kWholeUnits + first_unit() + int(threadIdx.x) % kWarpUnits;
  }
  __device__ static int entries() { return kWholeRows * kWholeUnits; }
};

// f(entry, row) for all cells of this thread, outside the steps.
template <class Map, class F>
__device__ void each_cell(const Map& map, const F& f) {
  for (int pass = 0; pass < map.passes(); ++pass) {
    for (int i = 0; i < Map::kCells; ++i) {
      const int r = map.row(pass, i);
      if (map.has_cell(r)) f(map.entry(r), r);
    }
  }
}

// f(row) for this thread's unit and its share of the rows of a whole block's buffers, padding
// included; rows that have cells go to their own threads.
template <class Map, class F>
__device__ void each_exchanged(const F& f) {
  for (int r = Map::row(0, 0); r < kWholeRows; r += 32 / kWarpUnits) f(r);
}

// The blocks that make a slice of the exchanged values, `values` of each unit.
struct Makers {
  int first, last;
  __device__ Makers(int k_block, int count, int values, int units, int H) {
    const int eights = (H + 7) / 8 * values;  // sets of eight exchanged values
    const int behind = (k_block + count) * 4 < eights ? (k_block + count) * 4 : eights;
    first = k_block * 4 / values * 8 / units;
    last = count == 0 ? -1 : (behind - 1) / values * 8 / units;
  }
};

}  // namespace seq2seq_ext::kernels::cuda::persistent
