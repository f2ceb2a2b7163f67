// SPDX-License-Identifier: MIT
// What the phases of a backward share: the shape, the order of the entries, and the gradients of
// the gate sums, which the recurrence leaves and the rest is made from. The number of gates is a
// run-time value here, so that what follows the recurrence is compiled once for all cells.
#pragma once

#include "cpu/micro.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T>
struct BackwardState {
  using Acc = AccOf<T>;
  static constexpr int NV = 4;
  static constexpr int64_t kColumns = NV * kLanesOf<T>;

  const SequenceBackwardParams& params;
  const SequenceShape& shape;
  const Schedule& schedule;
  const int64_t B, I, H, P;
  const int64_t gates;                       // of the cell
  const int64_t slots;                       // gate gradients kept per unit
  const int64_t first_hidden;                // slots from here on are W_hh's rows, in order
  const int64_t hidden_panels, unit_panels;  // panels of h's columns, and of the cell's units

  // Work memory of one direction.
  struct Direction {
    explicit Direction(const BackwardState& f)
        : packed_hh(f.hidden_panels * panel_size<T, NV>(f.gates * f.H)),
          packed_hr(f.has_projection() ? f.unit_panels * panel_size<T, NV>(f.P) : 0),
          d_gates(f.schedule.N * f.slots * f.H),
          d_hidden(f.has_projection() ? f.schedule.N * f.P : 0),
          d_state(f.B * f.H) {}
    ScratchArray<T> packed_hh;  // W_hh by columns: K = G*H
    ScratchArray<T> packed_hr;  // W_hr by columns: K = P
    ScratchArray<T> d_gates;    // (N, slots, H)
    ScratchArray<T> d_hidden;   // (N, P): gradient of h, with a projection only
    // (B, H): gradient of c (LSTM); the part of h's gradient that bypasses W_hh (GRU).
    ScratchArray<Acc> d_state;
  };

  BackwardState(const SequenceBackwardParams& p, const Schedule& s)
      : params(p),
        shape(p.shape),
        schedule(s),
        B(shape.B),
        I(shape.I),
        H(shape.H),
        P(shape.P),
        gates(num_gates(shape.cell)),
        slots(num_saved(shape.cell)),
        first_hidden(slots - gates),
        hidden_panels((P + kColumns - 1) / kColumns),
        unit_panels((H + kColumns - 1) / kColumns) {}

  bool has_projection() const { return params.direction[0].weights.w_hr != nullptr; }

  const T* d_gates_row(const Direction& work, int64_t s, int64_t i) const {
    return work.d_gates.data() + (schedule.offset[s] + i) * slots * H;
  }

  // h before step s of sorted row i: the output of the step before, or h0.
  const T* h_before(int d, int64_t s, int64_t i) const {
    const int64_t b = schedule.order[i];
    if (s == 0) return static_cast<const T*>(params.direction[d].h0) + b * P;
    return static_cast<const T*>(params.y) +
           schedule.time(s - 1, i, shape.reverse[d]) * params.y_stride_t + b * params.y_stride_b +
           d * P;
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
