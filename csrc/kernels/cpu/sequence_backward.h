// SPDX-License-Identifier: MIT
// Backward of one recurrent layer over a whole sequence: the recurrence from the last step to the
// first, which leaves the gradients of all gate sums; weight_gradients.h makes the rest of them.
//
// A thread owns a slice of h's columns. At each step it completes the gradient of its columns of h
// (a product of the next step's gate gradients with W_hh), goes back through their gates, and meets
// the others at one barrier.
#pragma once

#include "cpu/backward_state.h"
#include "cpu/cells.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T, class Cell>
struct SequenceBackward : BackwardState<T> {
  using State = BackwardState<T>;
  using Direction = typename State::Direction;
  using State::B, State::H, State::P, State::params, State::schedule, State::shape;
  using State::d_gates_row, State::h_before, State::has_projection;
  using State::hidden_panels, State::unit_panels;
  using State::kColumns, State::NV;
  using Acc = AccOf<T>;
  using V = Vec<Acc>;
  static constexpr int G = Cell::kGates;
  static constexpr int kSlots = Cell::kSaved;
  static constexpr int kFirstHidden = kSlots - G;
  static_assert(kFirstHidden == (Cell::kSplitHidden ? 1 : 0), "see cells/lstm.h, cells/gru.h");
  static_assert(!(Cell::kSplitHidden && Cell::kHasCell), "d_state is the one's or the other's");
  static constexpr int kLanes = V::kLanes;
  static constexpr bool kBypasses = Cell::kSplitHidden;  // GRU: z dh reaches h_prev directly

  using State::State;

  // Gradient that reaches h(s, i) from outside the recurrence: dy, and dh_n at the row's last step.
  V outer_gradient(int d, int64_t s, int64_t i, int64_t column, int n) const {
    const auto& direction = params.direction[d];
    const int64_t b = schedule.order[i];
    V sum(Acc(0));
    if (params.dy != nullptr) {
      sum = load(static_cast<const T*>(params.dy) +
                     schedule.time(s, i, shape.reverse[d]) * params.dy_stride_t +
                     b * params.dy_stride_b + d * P + column,
                 n);
    }
    if (i >= schedule.active[s + 1] && direction.dh_n != nullptr) {
      sum = sum + load(static_cast<const T*>(direction.dh_n) + b * P + column, n);
    }
    return sum;
  }

  // Back through the gates of `n` units of sorted row i at step s, given the gradient of the cell's
  // output.
  void cell_backward(int d, Direction& work, int64_t s, int64_t i, int64_t unit, int n,
                     V dh) const {
    const auto& direction = params.direction[d];
    const int64_t b = schedule.order[i], entry = schedule.offset[s] + i;
    V saved[kSlots], d_gate[kSlots], after{}, before{}, d_state{};
    const T* from = static_cast<const T*>(direction.saved_gates) + entry * kSlots * H + unit;
#pragma GCC unroll 4
    for (int g = 0; g < kSlots; ++g) saved[g] = load(from + g * H, n);
    Acc* state = work.d_state.data() + i * H + unit;
    const bool last = i >= schedule.active[s + 1];
    if constexpr (Cell::kHasCell) {
      const Acc* cells = static_cast<const Acc*>(direction.saved_cells);
      after = load(cells + entry * H + unit, n);
      before = s == 0 ? load(static_cast<const Acc*>(direction.c0) + b * H + unit, n)
                      : load(cells + (schedule.offset[s - 1] + i) * H + unit, n);
      if (!last) {
        d_state = load(state, n);
      } else if (direction.dc_n != nullptr) {
        d_state = load(static_cast<const Acc*>(direction.dc_n) + b * H + unit, n);
      }
    } else if constexpr (kBypasses) {
      before = load(h_before(d, s, i) + unit, n);
      if (!last) dh = dh + load(state, n);
    }
    Cell::backward(dh, saved, after, before, d_state, d_gate);
    if constexpr (Cell::kHasCell || kBypasses) store(state, d_state, n);
    T* to = work.d_gates.data() + entry * kSlots * H + unit;
#pragma GCC unroll 4
    for (int g = 0; g < kSlots; ++g) store(to + g * H, d_gate[g], n);
  }

  // Calls use(i, column, n, product) for the recurrent gradient of h's columns in panels [begin,
  // end) after step s, for rows that go on to step s + 1 (`rows` of them).
  template <class Use>
  void recurrent_product(const Direction& work, int64_t next_step, int64_t rows, int64_t begin,
                         int64_t end, const Use& use) const {
    alignas(64) Acc tile[kMaxTileRows<NV> * kColumns];
    const T* d_rows[kMaxTileRows<NV>];
    for (int64_t p = begin; p < end; ++p) {
      const T* panel = work.packed_hh.data() + p * panel_size<T, NV>(G * H);
      for (int64_t i = 0, tile_rows; i < rows; i += tile_rows) {
        const int64_t wanted = std::min<int64_t>(kMaxTileRows<NV>, rows - i);
        for (int64_t m = 0; m < wanted; ++m)
          d_rows[m] = d_gates_row(work, next_step, i + m) + kFirstHidden * H;
        tile_rows = panel_product<T, NV>(d_rows, wanted, G * H, panel, nullptr, tile, kColumns);
        use_tile(tile, i, tile_rows, p, P, use);
      }
    }
  }

  template <class Use>
  void use_tile(const Acc* tile, int64_t i, int64_t tile_rows, int64_t p, int64_t width,
                const Use& use) const {
    for (int64_t m = 0; m < tile_rows; ++m) {
      for (int v = 0; v < NV; ++v) {
        const int64_t column = p * kColumns + v * kLanes;
        if (column >= width) break;
        use(i + m, column, static_cast<int>(std::min<int64_t>(kLanes, width - column)),
            load(tile + m * kColumns + v * kLanes));
      }
    }
  }

  // Calls use(i, column, n, zero) for rows [first, last), which end at the step in question.
  template <class Use>
  void ending_rows(int64_t first, int64_t last, int64_t begin, int64_t end, const Use& use) const {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t column = begin * kColumns; column < std::min(P, end * kColumns);
           column += kLanes) {
        use(i, column, static_cast<int>(std::min<int64_t>(kLanes, P - column)), V(Acc(0)));
      }
    }
  }

  void pack(int d, Direction& work, const Member& member) const {
    const RecurrentWeights& w = params.direction[d].weights;
    for (int64_t p = member.begin(hidden_panels); p < member.end(hidden_panels); ++p) {
      const T* first = static_cast<const T*>(w.w_hh) + p * kColumns;
      pack_panel_columns<T, NV>([&](int64_t k) { return first + k * P; }, G * H, P - p * kColumns,
                                work.packed_hh.data() + p * panel_size<T, NV>(G * H));
    }
    if (!has_projection()) return;
    for (int64_t p = member.begin(unit_panels); p < member.end(unit_panels); ++p) {
      const T* first = static_cast<const T*>(w.w_hr) + p * kColumns;
      pack_panel_columns<T, NV>([&](int64_t k) { return first + k * H; }, P, H - p * kColumns,
                                work.packed_hr.data() + p * panel_size<T, NV>(P));
    }
  }

  // Gradient of the cell's output from the gradient of h, through the projection.
  void unproject(int d, Direction& work, int64_t s, const Member& member) const {
    alignas(64) Acc tile[kMaxTileRows<NV> * kColumns];
    const T* rows[kMaxTileRows<NV>];
    const int64_t active = schedule.active[s];
    for (int64_t p = member.begin(unit_panels); p < member.end(unit_panels); ++p) {
      const T* panel = work.packed_hr.data() + p * panel_size<T, NV>(P);
      for (int64_t i = 0, tile_rows; i < active; i += tile_rows) {
        const int64_t wanted = std::min<int64_t>(kMaxTileRows<NV>, active - i);
        for (int64_t m = 0; m < wanted; ++m)
          rows[m] = work.d_hidden.data() + (schedule.offset[s] + i + m) * P;
        tile_rows = panel_product<T, NV>(rows, wanted, P, panel, nullptr, tile, kColumns);
        use_tile(tile, i, tile_rows, p, H, [&](int64_t row, int64_t unit, int n, V dh) {
          cell_backward(d, work, s, row, unit, n, dh);
        });
      }
    }
  }

  // One member's part of one direction's recurrence.
  void run(int d, Direction& work, const Member& member) const {
    const int64_t begin = member.begin(hidden_panels), end = member.end(hidden_panels);
    pack(d, work, member);
    for (int64_t s = schedule.steps - 1; s >= 0; --s) {
      const auto use = [&](int64_t i, int64_t column, int n, V product) {
        const V dh = product + outer_gradient(d, s, i, column, n);
        if (has_projection()) {
          store(work.d_hidden.data() + (schedule.offset[s] + i) * P + column, dh, n);
        } else {
          cell_backward(d, work, s, i, column, n, dh);
        }
      };
      const int64_t continuing = schedule.active[s + 1];
      if (continuing > 0) {
        member.barrier->wait();
        recurrent_product(work, s + 1, continuing, begin, end, use);
      }
      ending_rows(continuing, schedule.active[s], begin, end, use);
      if (has_projection()) {
        member.barrier->wait();
        unproject(d, work, s, member);
      }
    }
    member.barrier->wait();
    initial_gradients(d, work, member);
  }

  void initial_gradients(int d, Direction& work, const Member& member) const {
    const auto& direction = params.direction[d];
    const int64_t running = schedule.steps == 0 ? 0 : schedule.active[0];
    T* dh0 = static_cast<T*>(direction.dh0);
    if (dh0 != nullptr && running > 0) {
      recurrent_product(work, 0, running, member.begin(hidden_panels), member.end(hidden_panels),
                        [&](int64_t i, int64_t column, int n, V dh) {
                          if constexpr (kBypasses)
                            dh = dh + load(work.d_state.data() + i * H + column, n);
                          store(dh0 + schedule.order[i] * P + column, dh, n);
                        });
    }
    for (int64_t i = member.begin(B); i < member.end(B); ++i) {
      const int64_t b = schedule.order[i];
      if (i >= running && dh0 != nullptr)
        copy_or_zero(static_cast<const T*>(direction.dh_n), b, P, dh0);
      if constexpr (Cell::kHasCell) {
        Acc* dc0 = static_cast<Acc*>(direction.dc0);
        if (dc0 == nullptr) continue;
        if (i < running)
          std::copy_n(work.d_state.data() + i * H, H, dc0 + b * H);
        else
          copy_or_zero(static_cast<const Acc*>(direction.dc_n), b, H, dc0);
      }
    }
  }

  template <class E>
  static void copy_or_zero(const E* from, int64_t b, int64_t width, E* to) {
    if (from != nullptr)
      std::copy_n(from + b * width, width, to + b * width);
    else
      std::fill_n(to + b * width, width, E{});
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
