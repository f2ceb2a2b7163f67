// SPDX-License-Identifier: MIT
// How the cells of a block, (unit, batch row) pairs, are handed out to its threads, which is the
// same forwards and backwards: a thread has one unit, and in each pass the rows kCellRows apart.
#pragma once

#include "cuda/gates.cuh"
#include "cuda/persistent.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

template <class Args, int kUnits>
struct Cells {
  static constexpr int kCells = kUnits * kPassRows / kThreads;  // of a thread, in a pass
  static constexpr int kCellRows = kThreads / kUnits;
  static_assert(kCells * kThreads == kUnits * kPassRows);

  const Args& args;
  const Group& group;
  const typename Args::Direction& direction;
  const Place place;
  const bool reverse;
  const int H, unit;
  const bool has_unit;

  __device__ Cells(const Args& a, const Place& p)
      : args(a),
        group(a.group),
        direction(a.direction[p.direction]),
        place(p),
        reverse(a.reverse[p.direction]),
        H(a.group.H),
        unit(p.unit_block * kUnits + local_unit()),
        has_unit(unit < H) {}

  __device__ static int local_unit() { return int(threadIdx.x) % kUnits; }

  // Cell i of a pass: its row in the group, its entry in an array of all of a block's cells (which
  // only its thread uses), its row in the batch.
  __device__ static int row(int pass, int i) {
    return pass * kPassRows + int(threadIdx.x) / kUnits + i * kCellRows;
  }
  __device__ static int entry(int r) { return r * kUnits + local_unit(); }
  __device__ int entries() const {
    return (group.batch_tile + kPassRows - 1) / kPassRows * kPassRows * kUnits;
  }
  __device__ int64_t batch_row(int r) const { return place.first_row + r; }
  __device__ bool has_cell(int r) const { return has_unit && r < place.rows; }

  __device__ int time(int step) const { return reverse ? group.T - 1 - step : step; }

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

  // f(entry, row) for all cells of this thread, outside the steps.
  template <class F>
  __device__ void each_cell(const F& f) const {
    for (int pass = 0; pass < place.passes; ++pass) {
      for (int i = 0; i < kCells; ++i) {
        const int r = row(pass, i);
        if (has_cell(r)) f(entry(r), r);
      }
    }
  }
};

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
