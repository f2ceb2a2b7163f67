// SPDX-License-Identifier: MIT
// How the persistent kernels cut a problem, and the numbers that the planner (plan.cpp) and the
// kernels have to agree on. No CUDA header here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/recurrence.h"

namespace seq2seq_ext::kernels::cuda::persistent {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kPassRows = 16;  // batch rows that are multiplied at a time

// How many of a product's K blocks (of 32) one warp takes.
constexpr int k_blocks_of_warp(int k_blocks) { return (k_blocks + kWarps - 1) / kWarps; }

// Blocks of 32 in a product over `values` exchanged values of each unit. Units are padded to eight.
constexpr int k_blocks(int values, int64_t H) { return int(((H + 7) / 8 * 8 * values + 31) / 32); }

// One kernel's tile: 16 * tiles rows of the weights, whose fragments of up to `resident` K blocks
// stay in a warp's registers.
struct Tile {
  int units, tiles, resident;
};

// Forward: rows are all gates of the units. Registers a thread spends on weights: 8 * tiles *
// resident, here 128 of the 255 it can have, or 96 for the GRU.
constexpr Tile forward_tile(int gates) {
  return gates == 4 ? Tile{16, 4, 4} : gates == 3 ? Tile{16, 3, 4} : Tile{32, 2, 8};
}

// Backward: rows are the units, K is gates * H. 16 units load fewer weights, 32 exchange less.
constexpr Tile backward_tile(bool wide) { return wide ? Tile{32, 2, 8} : Tile{16, 1, 16}; }

// Up to this H one block has all units of its batch rows, 16 to a warp: nothing is exchanged
// between blocks.
constexpr int kWarpUnits = 16, kWholeUnits = kWarps * kWarpUnits;
constexpr int kWholeForwardRows = 8, kWholeBackwardRows = 8;  // at most: registers of their cells
constexpr int kWholeRows = 8;                                 // of a product

// Sums that one warp makes of a tile: vectors of one float for one value a cell, of four for more.
constexpr int partial_vectors(int values, int units, int rows) {
  return values == 1 ? rows * (units + 4) : units * (rows + 1);
}
constexpr int vector_bytes(int values) { return values == 1 ? 4 : 16; }

// Dynamic shared memory of a block that shares the units with others: the warps' partial sums, two
// passes' in turn; weights that are not in registers; two states and a length for each cell;
// biases.
constexpr int kBiases = 8;  // of a thread, at most
constexpr int64_t shared_bytes(const Tile& tile, int values, int k_blocks, int resident,
                               int batch_tile) {
  const int64_t partials =
      int64_t(2) * kWarps * vector_bytes(values) * partial_vectors(values, tile.units, kPassRows);
  const int per_warp = k_blocks_of_warp(k_blocks);
  const int spilled = per_warp > resident ? per_warp - resident : 0;
  const int64_t spill = int64_t(kWarps) * spilled * 2 * tile.tiles * 512;
  const int64_t rows = (batch_tile + kPassRows - 1) / kPassRows * kPassRows;
  const int64_t states = 3 * 4 * tile.units * rows;
  return partials + spill + states + kBiases * 4 * kThreads;
}

// Of a block that has all units: sums; `exchanged` values of each unit, two steps' in turn; states
// and biases as above.
constexpr int64_t whole_shared_bytes(int values, int exchanged) {
  const int64_t partials =
      int64_t(kWarps) * vector_bytes(values) * partial_vectors(values, kWarpUnits, kWholeRows);
  const int64_t exchange = 2 * 2 * kWholeUnits * kWholeRows * exchanged;
  return partials + exchange + 3 * 4 * kWholeUnits * kWholeRows + kBiases * 4 * kThreads;
}

// The cut among blocks that share the units: what plan_forward() and plan_backward() choose
// above kWholeUnits, whatever else they look at. Tests take it for small H, too.
Plan shared_forward_plan(const SequenceShape& shape, const Device& device);
Plan shared_backward_plan(const SequenceShape& shape, const Device& device);

// Whether the cell has persistent kernels.
bool has_kernels(const SequenceShape& shape);

// Whether all blocks of the planned kernel are resident at once: what the device says of that very
// instantiation, registers included, if the current device is such a one.
bool forward_fits(const SequenceShape& shape, const Plan& plan, const Device& device);
bool backward_fits(const SequenceShape& shape, const Plan& plan, const Device& device);

}  // namespace seq2seq_ext::kernels::cuda::persistent
