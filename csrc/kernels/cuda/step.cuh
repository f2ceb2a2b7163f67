// SPDX-License-Identifier: MIT
// One step in one kernel: both products, biases, gates. A tile's rows of weights are handed out
// such that a thread ends up with all gate sums of its units (gates.cuh: GateTile), in kSlots
// slots:
//
//   LSTM  i, f, g, o                             W_ih x and W_hh h summed together
//   GRU   r, z summed together; n's W_ih x; n's W_hh h, which the reset gate multiplies alone
//   RNN   one
//
// so a slot may have no row of one of the two weights.
#pragma once

#include "cuda/gates.cuh"
#include "cuda/rows_tile.cuh"
#include "cuda/step.h"

namespace seq2seq_ext::kernels::cuda {

enum class Operand { kInput, kHidden };

// The gate whose row of W_ih (kInput) or W_hh (kHidden) a slot has; -1: none.
__device__ inline int gate_of_slot(Cell cell, Operand operand, int slot) {
  if (cell != Cell::kGru || slot < 2) return slot;
  return (slot == 2) == (operand == Operand::kInput) ? 2 : -1;
}

// A slot's gate sums -> the new state of one unit.
template <class CellType, class Acc, int kSlots>
__device__ inline Acc cell_forward(const Acc (&slots)[kSlots], Acc h_prev, Acc& state) {
  constexpr int G = CellType::kGates;
  Acc x_part[G], h_part[G] = {}, saved[CellType::kSaved];
#pragma unroll
  for (int g = 0; g < G; ++g) x_part[g] = slots[g];
  if constexpr (CellType::kSplitHidden) h_part[G - 1] = slots[kSlots - 1];
  return CellType::forward(x_part, h_part, h_prev, state, saved);
}

template <class Acc, int kSlots>
__device__ inline Acc cell_forward(Cell cell, const Acc (&slots)[kSlots], Acc h_prev, Acc& state) {
  using M = Math<Acc>;
  if constexpr (kSlots == 4) {
    if (cell == Cell::kLstm) return cell_forward<LstmCell<M>>(slots, h_prev, state);
    return cell_forward<GruCell<M>>(slots, h_prev, state);
  } else {
    if (cell == Cell::kRnnTanh) return cell_forward<RnnCell<M, false>>(slots, h_prev, state);
    return cell_forward<RnnCell<M, true>>(slots, h_prev, state);
  }
}

// The biases of one slot.
template <class T>
__device__ inline AccOf<T> slot_bias(const StepParams& p, int slot, int64_t unit) {
  AccOf<T> sum = 0;
  if (p.weights.b_ih == nullptr) return sum;
  const int x_gate = gate_of_slot(p.cell, Operand::kInput, slot);
  const int h_gate = gate_of_slot(p.cell, Operand::kHidden, slot);
  if (x_gate >= 0) sum += to_acc(static_cast<const T*>(p.weights.b_ih)[x_gate * p.H + unit]);
  if (h_gate >= 0) sum += to_acc(static_cast<const T*>(p.weights.b_hh)[h_gate * p.H + unit]);
  return sum;
}

template <class T, int kSlots, class Tile>
struct StepBlock {
  using Acc = AccOf<T>;
  using Units = GateTile<kSlots, Tile::kM, Tile::kWarps>;

  const StepParams& p;
  const int64_t first_unit, first_row;

  __device__ int64_t unit(int set) const { return first_unit + Units::own_unit(set); }
  __device__ int64_t row(int c) const { return first_row + Tile::share_col(c); }
  __device__ bool valid(int set, int c) const { return unit(set) < p.H && row(c) < p.B; }

  // Row i of the tile in one of the weights, (G*H, K).
  __device__ const T* weight_row(Operand operand, int i) const {
    const bool input = operand == Operand::kInput;
    const void* const weight = input ? p.weights.w_ih : p.weights.w_hh;
    const int gate = gate_of_slot(p.cell, operand, Units::gate(i));
    const int64_t unit = first_unit + Units::unit(i);
    if (gate < 0 || unit >= p.H) return nullptr;
    return static_cast<const T*>(weight) + (gate * p.H + unit) * (input ? p.I : p.P);
  }
  __device__ const T* input_row(int i) const {
    const int64_t row = first_row + i;
    return row < p.B ? static_cast<const T*>(p.x) + row * p.x_stride_b : nullptr;
  }
  __device__ int64_t from(int64_t row) const { return p.from == nullptr ? row : p.from[row]; }
  __device__ const T* hidden_row(int i) const {
    const int64_t row = first_row + i;
    return row < p.B ? static_cast<const T*>(p.h) + from(row) * p.P : nullptr;
  }

  // What the cell wants of the old state: the LSTM c, the GRU h.
  __device__ Acc old_state(int set, int c) const {
    if (kSlots == 1 || !Tile::owns_share() || !valid(set, c)) return Acc(0);
    const int64_t at = from(row(c)) * p.H + unit(set);
    if (p.cell == Cell::kLstm) return static_cast<const Acc*>(p.c)[at];
    return to_acc(static_cast<const T*>(p.h)[at]);
  }

  __device__ void new_state(int set, int c, const Acc (&slots)[kSlots], Acc old, T* out) const {
    if (!valid(set, c)) return;
    const int64_t at = row(c) * p.H + unit(set);
    Acc state = old;
    out[at] = from_acc<T>(cell_forward(p.cell, slots, old, state));
    if (kSlots == 4 && p.cell == Cell::kLstm) static_cast<Acc*>(p.c_out)[at] = state;
  }
};

template <class T>
struct StepLaunch {
  StepParams params;
  T* out;
};

template <class T, int kSlots, class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    step_kernel(const __grid_constant__ StepLaunch<T> launch, int64_t batch_tiles) {
  using Block = StepBlock<T, kSlots, Tile>;
  using Acc = AccOf<T>;
  constexpr int kSets = Block::Units::kSets;
  const StepParams& p = launch.params;
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  Tile tile(carver);
  const Block block{p, first_weight_row<Tile>(batch_tiles) / kSlots,
                    first_batch_row<Tile>(batch_tiles)};

  // Asked for before the products, so that they arrive while these run.
  Acc old[kSets][Tile::kShare], acc[Tile::kRows][Tile::kCols] = {};
#pragma unroll
  for (int set = 0; set < kSets; ++set) {
#pragma unroll
    for (int c = 0; c < Tile::kShare; ++c) old[set][c] = block.old_state(set, c);
    if (Tile::Shape::split() != 0 || block.unit(set) >= p.H) continue;
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const Acc bias = slot_bias<T>(p, slot, block.unit(set));
#pragma unroll
      for (int c = 0; c < Tile::kCols; ++c) acc[set * kSlots + slot][c] = bias;
    }
  }
  tile.run_pair(
      [&](int i) { return block.weight_row(Operand::kInput, i); },
      [&](int i) { return block.input_row(i); }, p.I,
      rows_aligned<T>(p.weights.w_ih, p.I, p.I) && rows_aligned<T>(p.x, p.x_stride_b, p.I), acc,
      [&](int i) { return block.weight_row(Operand::kHidden, i); },
      [&](int i) { return block.hidden_row(i); }, p.P,
      rows_aligned<T>(p.weights.w_hh, p.P, p.P) && rows_aligned<T>(p.h, p.P, p.P), acc);

  Acc share[Tile::kRows][Tile::kShare];
  tile.reduce(acc, share);
  if (!Tile::owns_share()) return;
#pragma unroll
  for (int set = 0; set < kSets; ++set) {
#pragma unroll
    for (int c = 0; c < Tile::kShare; ++c) {
      Acc slots[kSlots];
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot) slots[slot] = share[set * kSlots + slot][c];
      block.new_state(set, c, slots, old[set][c], launch.out);
    }
  }
}

template <class T, int kSlots, int kM, int kN>
Status launch_step(const StepLaunch<T>& launch, const Runtime& runtime) {
  using Tile = RowsTile<T, kM, kN>;
  const StepParams& p = launch.params;
  return launch_rows<Tile>("step", step_kernel<T, kSlots, Tile>, launch, kSlots * p.H, p.B,
                           runtime);
}

template <class T>
Status step_gates(const StepParams& p, T* out, const Runtime& runtime) {
  const StepLaunch<T> launch{p, out};
  if (p.cell == Cell::kRnnTanh || p.cell == Cell::kRnnRelu) {
    if (p.B <= 8) return launch_step<T, 1, 16, 8>(launch, runtime);
    return launch_step<T, 1, 32, 32>(launch, runtime);
  }
  if (p.B <= 8) return launch_step<T, 4, 32, 8>(launch, runtime);
  if constexpr (sizeof(T) == 2) {
    if (p.B <= 16) return launch_step<T, 4, 32, 16>(launch, runtime);
    if (p.B > 32) {
      // Large tiles read less; small ones reach more multiprocessors.
      const bool enough = RowsGrid(4 * p.H, p.B, 64, 64).blocks >= runtime.device.sms;
      if (enough) return launch_step<T, 4, 64, 64>(launch, runtime);
      return launch_step<T, 4, 32, 64>(launch, runtime);
    }
  }
  return launch_step<T, 4, 32, 32>(launch, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
