// SPDX-License-Identifier: MIT
// Forward of one recurrent layer over a whole sequence, one or two directions.
//
// A thread owns a slice of the hidden units: it packs their weights once, computes their input
// projections for a chunk of steps at a time, and then, step by step, their recurrent products and
// gates, with the accumulators of all gates of a unit side by side. Threads meet at one barrier a
// step, to exchange h. Two directions run as two teams.
#pragma once

#include "cpu/cells.h"
#include "cpu/fingerprint.h"
#include "cpu/micro.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T, class Cell>
struct SequenceForward {
  using Acc = AccOf<T>;
  using V = Vec<Acc>;
  static constexpr int G = Cell::kGates;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kUnitVecs = G == 1 ? 4 : 1;  // a panel: all gates of kUnits units
  static constexpr int kUnits = kUnitVecs * kLanes;
  static constexpr int NV = G * kUnitVecs;
  static constexpr int64_t kColumns = NV * kLanes;
  static constexpr int kProjectionVecs = 4;
  static constexpr int64_t kProjectionColumns = kProjectionVecs * kLanes;

  // Input projections kept at a time, per thread: enough rows for full tiles, few enough for the L2
  // cache.
  static constexpr int64_t kChunkBytes = 384 << 10;

  const SequenceForwardParams& params;
  const SequenceShape& shape;
  const Schedule& schedule;
  const int64_t B, I, H, P;
  const int64_t panels, projection_panels;
  const int64_t hidden_stride;  // of the compact h and m buffers; padded off powers of two
  const int64_t cell_stride;
  const int team;  // threads per direction, at the most
  const int64_t chunk_rows;

  // Work memory of one direction.
  struct Direction {
    Direction(const SequenceForward& f, int d)
        : weights(f.packed_weights(d)),
          packed_ih(static_cast<T*>(weights->ih())),
          packed_hh(static_cast<T*>(weights->hh())),
          packed_hr(static_cast<T*>(weights->hr())),
          x_bias(f.panels * kColumns),
          h_bias(f.panels * kUnits),
          x_parts(f.panels * f.chunk_rows * kColumns),
          row_pointers(f.team * f.chunk_rows),
          hidden(2 * f.B * f.hidden_stride),
          unprojected(f.has_projection() ? f.B * f.hidden_stride : 0),
          cell(Cell::kHasCell ? f.B * f.cell_stride : 0) {}
    std::unique_ptr<PackedWeights> weights;
    T *const packed_ih, *const packed_hh, *const packed_hr;
    ScratchArray<Acc> x_bias,
        h_bias;  // b_ih + b_hh; the part of b_hh that stays with the recurrent product
    ScratchArray<Acc>
        x_parts;  // (panels, chunk_rows, kColumns): input projections of the current chunk
    ScratchArray<const T*> row_pointers;  // (team, chunk_rows)
    ScratchArray<T>
        hidden;  // (2, B, hidden_stride): h before and after the step, rows in schedule order
    ScratchArray<T> unprojected;  // (B, hidden_stride): o tanh(c), before the projection
    ScratchArray<Acc> cell;       // (B, cell_stride)
  };

  SequenceForward(const SequenceForwardParams& p, const Schedule& s, int team_size)
      : params(p),
        shape(p.shape),
        schedule(s),
        B(shape.B),
        I(shape.I),
        H(shape.H),
        P(shape.P),
        panels((H + kUnits - 1) / kUnits),
        projection_panels((P + kProjectionColumns - 1) / kProjectionColumns),
        hidden_stride((std::max(H, P) + 31) / 16 * 16),
        cell_stride(panels * kUnits),
        team(team_size),
        chunk_rows(std::max(
            B, std::min(s.N, kChunkBytes * team / (panels * kColumns * int64_t{sizeof(Acc)})))) {}

  bool has_projection() const { return params.direction[0].weights.w_hr != nullptr; }

  // Steps [s, result) have their input projections computed together.
  int64_t chunk_end(int64_t s) const {
    int64_t end = s + 1;
    while (end < schedule.steps && schedule.offset[end + 1] - schedule.offset[s] <= chunk_rows)
      ++end;
    return end;
  }

  // Training changes the weights before the next call.
  bool keeps_weights() const { return params.direction[0].saved_gates == nullptr; }

  std::unique_ptr<PackedWeights> packed_weights(int d) const {
    const RecurrentWeights& w = params.direction[d].weights;
    const PackedWeights::Key key{w.w_ih,
                                 w.w_hh,
                                 w.w_hr,
                                 I,
                                 H,
                                 P,
                                 static_cast<int>(shape.cell),
                                 static_cast<int>(shape.dtype)};
    const auto bytes = [](int64_t count, int64_t panel) {
      return count * panel * static_cast<int64_t>(sizeof(T));
    };
    const int64_t hr_panels = has_projection() ? projection_panels : 0;
    const PackedWeights::Sizes sizes{
        bytes(panels, panel_size<T, NV>(I)), bytes(panels, panel_size<T, NV>(P)),
        bytes(hr_panels, panel_size<T, kProjectionVecs>(H)), panels, hr_panels};
    if (!keeps_weights()) return std::make_unique<PackedWeights>(key, sizes);
    return take_packed_weights(key, sizes);
  }

  // True where panel p is packed already, from weights as they are.
  bool is_packed(const RecurrentWeights& w, Direction& work, int64_t p) const {
    if (!keeps_weights()) return false;
    if (work.weights->trusted()) return true;
    FingerprintReader reader;
    for (int i = 0; i < kPieces; ++i) {
      const Piece piece = source(w, p, i);
      reader.read(piece.data, piece.bytes);
    }
    return work.weights->same(p, reader.value());
  }

  // What panel p is packed from: of w_ih and w_hh the rows of its units, gate by gate.
  struct Piece {
    const char* data;
    int64_t bytes;
  };
  static constexpr int kPieces = 2 * G;
  Piece source(const RecurrentWeights& w, int64_t p, int index) const {
    const int64_t unit = p * kUnits, units = std::min<int64_t>(kUnits, H - unit);
    const int64_t K = index < G ? I : P;
    const T* matrix = static_cast<const T*>(index < G ? w.w_ih : w.w_hh);
    return {reinterpret_cast<const char*>(matrix + (index % G * H + unit) * K),
            units * K * static_cast<int64_t>(sizeof(T))};
  }

  bool is_projection_packed(const RecurrentWeights& w, Direction& work, int64_t p) const {
    if (!keeps_weights()) return false;
    if (work.weights->trusted()) return true;
    FingerprintReader reader;
    const int64_t row = p * kProjectionColumns, rows = std::min(kProjectionColumns, P - row);
    reader.read(static_cast<const T*>(w.w_hr) + row * H,
                rows * H * static_cast<int64_t>(sizeof(T)));
    return work.weights->same_projection(p, reader.value());
  }

  void pack(const RecurrentWeights& w, Direction& work, int64_t p) const {
    const auto row_of = [this, p](int64_t column) {
      const int64_t unit = p * kUnits + column % kUnits;
      return unit < H ? column / kUnits * H + unit : -1;
    };
    if (!is_packed(w, work, p)) {
      pack_panel_rows<T, NV>(static_cast<const T*>(w.w_ih), I, I, row_of,
                             work.packed_ih + p * panel_size<T, NV>(I));
      pack_panel_rows<T, NV>(static_cast<const T*>(w.w_hh), P, P, row_of,
                             work.packed_hh + p * panel_size<T, NV>(P));
    }
    const T* b_ih = static_cast<const T*>(w.b_ih);
    const T* b_hh = static_cast<const T*>(w.b_hh);
    for (int64_t column = 0; column < kColumns; ++column) {
      const int64_t row = row_of(column);
      const bool splits = Cell::kSplitHidden && column / kUnits == G - 1;
      Acc bias = 0, recurrent = 0;
      if (row >= 0 && b_ih != nullptr) {
        bias = to_acc(b_ih[row]);
        recurrent = to_acc(b_hh[row]);
      }
      work.x_bias[p * kColumns + column] = splits ? bias : bias + recurrent;
      if (splits) work.h_bias[p * kUnits + column % kUnits] = recurrent;
    }
  }

  void pack_projection(const RecurrentWeights& w, Direction& work, int64_t begin,
                       int64_t end) const {
    for (int64_t p = begin; p < end; ++p) {
      if (is_projection_packed(w, work, p)) continue;
      pack_panel_rows<T, kProjectionVecs>(
          static_cast<const T*>(w.w_hr), H, H,
          [this, p](int64_t j) {
            const int64_t row = p * kProjectionColumns + j;
            return row < P ? row : -1;
          },
          work.packed_hr + p * panel_size<T, kProjectionVecs>(H));
    }
  }

  // Initial states into the compact buffers; zero padding in y; final states of rows that never
  // run.
  void initialise(int d, Direction& work, int64_t begin, int64_t end) const {
    const auto& direction = params.direction[d];
    const T* h0 = static_cast<const T*>(direction.h0);
    const Acc* c0 = static_cast<const Acc*>(direction.c0);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = schedule.order[i];
      std::copy_n(h0 + b * P, P, work.hidden.data() + i * hidden_stride);
      if (Cell::kHasCell) std::copy_n(c0 + b * H, H, work.cell.data() + i * cell_stride);
      if (schedule.length[i] == 0) {
        std::copy_n(h0 + b * P, P, static_cast<T*>(direction.h_n) + b * P);
        if (Cell::kHasCell) std::copy_n(c0 + b * H, H, static_cast<Acc*>(direction.c_n) + b * H);
      }
      for (int64_t t = schedule.length[i]; t < shape.T; ++t) {
        std::fill_n(y_row(d, t, b), P, T{});
      }
    }
  }

  T* y_row(int d, int64_t t, int64_t b) const {
    return static_cast<T*>(params.y) + t * params.y_stride_t + b * params.y_stride_b + d * P;
  }

  // h of sorted row i is final at this step: hand it out.
  void write_hidden(int d, int64_t s, int64_t i, int64_t unit, int n, V h, T* next) const {
    const int64_t b = schedule.order[i];
    store(next + i * hidden_stride + unit, h, n);
    store(y_row(d, schedule.time(s, i, shape.reverse[d]), b) + unit, h, n);
    if (i >= schedule.active[s + 1])
      store(static_cast<T*>(params.direction[d].h_n) + b * P + unit, h, n);
  }

  // Gates of one panel's units for sorted row i at step s.
  void gates(int d, Direction& work, int64_t s, int64_t i, int64_t p, const Acc* x_parts,
             const Acc* h_parts, const T* previous, T* next) const {
    const auto& direction = params.direction[d];
    const int64_t b = schedule.order[i];
    const int64_t entry = schedule.offset[s] + i;
#pragma GCC unroll 4
    for (int u = 0; u < kUnitVecs; ++u) {
      const int64_t unit = p * kUnits + u * kLanes;
      const int n = static_cast<int>(std::min<int64_t>(kLanes, H - unit));
      if (n <= 0) return;
      V x_part[G], h_part[G], saved[Cell::kSaved];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        x_part[g] = load(x_parts + (g * kUnitVecs + u) * kLanes);
        h_part[g] = load(h_parts + (g * kUnitVecs + u) * kLanes);
      }
      if constexpr (Cell::kSplitHidden)
        h_part[G - 1] = h_part[G - 1] + load(work.h_bias.data() + unit);
      V h_prev{}, state{};
      Acc* cell = work.cell.data() + i * cell_stride + unit;
      if constexpr (Cell::kSplitHidden) h_prev = load(previous + i * hidden_stride + unit, n);
      if constexpr (Cell::kHasCell) state = load(cell);
      const V h = Cell::forward(x_part, h_part, h_prev, state, saved);
      if constexpr (Cell::kHasCell) {
        store(cell, state);
        if (i >= schedule.active[s + 1])
          store(static_cast<Acc*>(direction.c_n) + b * H + unit, state, n);
        if (direction.saved_cells != nullptr) {
          store(static_cast<Acc*>(direction.saved_cells) + entry * H + unit, state, n);
        }
      }
      if (direction.saved_gates != nullptr) {
        T* to = static_cast<T*>(direction.saved_gates) + entry * Cell::kSaved * H + unit;
#pragma GCC unroll 4
        for (int g = 0; g < Cell::kSaved; ++g) store(to + g * H, saved[g], n);
      }
      if (has_projection()) {
        store(work.unprojected.data() + i * hidden_stride + unit, h, n);
      } else {
        write_hidden(d, s, i, unit, n, h, next);
      }
    }
  }

  void project(int d, Direction& work, int64_t s, int64_t begin, int64_t end, const T** rows,
               T* next) const {
    alignas(64) Acc tile[kMaxTileRows<kProjectionVecs> * kProjectionColumns];
    const int64_t active = schedule.active[s];
    for (int64_t i = 0; i < active; ++i) rows[i] = work.unprojected.data() + i * hidden_stride;
    for (int64_t p = begin; p < end; ++p) {
      const T* panel = work.packed_hr + p * panel_size<T, kProjectionVecs>(H);
      for (int64_t i = 0, tile_rows; i < active; i += tile_rows) {
        tile_rows = panel_product<T, kProjectionVecs>(rows + i, active - i, H, panel, nullptr, tile,
                                                      kProjectionColumns);
        for (int64_t m = 0; m < tile_rows; ++m) {
          for (int v = 0; v < kProjectionVecs; ++v) {
            const int64_t column = p * kProjectionColumns + v * kLanes;
            const int n = static_cast<int>(std::min<int64_t>(kLanes, P - column));
            if (n <= 0) break;
            write_hidden(d, s, i + m, column, n, load(tile + m * kProjectionColumns + v * kLanes),
                         next);
          }
        }
      }
    }
  }

  // What the tiles of one panel fetch for the next, which memory or the third-level cache brings
  // while the products leave them idle: tile i the line `lines` + 64 of each step of k. That is one
  // vector of a packed panel's NV, or one piece of what a panel is packed from.
  static const char* packed_lines(const T* panel, int64_t K, int i) {
    return i < NV ? reinterpret_cast<const char*>(panel) +
                        i * (panel_size<T, NV>(K) / NV) * static_cast<int64_t>(sizeof(T))
                  : nullptr;
  }

  static int64_t product(const T* const* rows, int64_t count, int64_t K, const T* panel,
                         const Acc* init, Acc* out, const char* lines) {
    return lines != nullptr
               ? panel_product<T, NV, true>(rows, count, K, panel, init, out, kColumns, lines)
               : panel_product<T, NV>(rows, count, K, panel, init, out, kColumns);
  }

  // Input projections of `count` rows for panel p's units. `last`: no panel follows. With
  // `weights`, the next panel is still to be packed or compared with them.
  void project_input(Direction& work, int64_t p, int64_t count, const T* const* rows, bool last,
                     const RecurrentWeights* weights) const {
    const T* panel = work.packed_ih + p * panel_size<T, NV>(I);
    const Acc* bias = work.x_bias.data() + p * kColumns;
    Acc* to = work.x_parts.data() + p * chunk_rows * kColumns;
    int i = 0;
    for (int64_t r = 0; r < count; ++i) {
      const char* lines = nullptr;
      if (!last && weights != nullptr) {
        lines = i < kPieces ? source(*weights, p + 1, i).data : nullptr;
      } else if (!last) {
        lines = packed_lines(panel + panel_size<T, NV>(I), I, i);
      }
      r += product(rows + r, count - r, I, panel, bias, to + r * kColumns, lines);
    }
  }

  // One member's part of one direction.
  void run(int d, Direction& work, const Member& member) const {
    const T** const rows = work.row_pointers.data() + member.index * chunk_rows;
    const RecurrentWeights& weights = params.direction[d].weights;
    const bool reverse = shape.reverse[d];
    const int64_t begin = member.begin(panels), end = member.end(panels);
    const int64_t hr_begin = member.begin(projection_panels),
                  hr_end = member.end(projection_panels);
    if (has_projection()) pack_projection(weights, work, hr_begin, hr_end);
    initialise(d, work, member.begin(B), member.end(B));

    alignas(64) Acc tile[kMaxTileRows<NV> * kColumns];
    for (int64_t s0 = 0, s1; s0 < schedule.steps; s0 = s1) {
      s1 = chunk_end(s0);
      const int64_t count = schedule.offset[s1] - schedule.offset[s0];
      for (int64_t s = s0; s < s1; ++s) {
        for (int64_t i = 0; i < schedule.active[s]; ++i) {
          rows[schedule.offset[s] - schedule.offset[s0] + i] =
              static_cast<const T*>(params.x) + schedule.time(s, i, reverse) * params.x_stride_t +
              schedule.order[i] * params.x_stride_b;
        }
      }
      for (int64_t p = begin; p < end; ++p) {
        if (s0 == 0) pack(weights, work, p);
        project_input(work, p, count, rows, p + 1 == end,
                      s0 == 0 && !work.weights->trusted() ? &weights : nullptr);
      }
      for (int64_t s = s0; s < s1; ++s) {
        member.barrier->wait();
        const int64_t active = schedule.active[s];
        const T* previous = work.hidden.data() + (s % 2) * B * hidden_stride;
        T* next = work.hidden.data() + ((s + 1) % 2) * B * hidden_stride;
        const T* h_rows[kMaxTileRows<NV>];
        for (int64_t turn = begin; turn < end; ++turn) {
          // Every other step goes through the panels backwards: those that the step before read
          // last are still in the second-level cache.
          const int64_t p = s % 2 == 0 ? turn : begin + end - 1 - turn;
          const T* panel = work.packed_hh + p * panel_size<T, NV>(P);
          const T* following = panel + (s % 2 == 0 ? 1 : -1) * panel_size<T, NV>(P);
          // The hardware does it where a panel is read only once.
          const bool fetches = active > kMaxTileRows<NV> / 2 && turn + 1 < end;
          const Acc* x_part =
              work.x_parts.data() +
              (p * chunk_rows + schedule.offset[s] - schedule.offset[s0]) * kColumns;
          int tiles = 0;
          for (int64_t i = 0, tile_rows; i < active; i += tile_rows, ++tiles) {
            const int64_t wanted = std::min<int64_t>(kMaxTileRows<NV>, active - i);
            for (int64_t m = 0; m < wanted; ++m) h_rows[m] = previous + (i + m) * hidden_stride;
            tile_rows = product(h_rows, wanted, P, panel, nullptr, tile,
                                fetches ? packed_lines(following, P, tiles) : nullptr);
            for (int64_t m = 0; m < tile_rows; ++m) {
              gates(d, work, s, i + m, p, x_part + (i + m) * kColumns, tile + m * kColumns,
                    previous, next);
            }
          }
        }
        if (has_projection()) {
          member.barrier->wait();
          project(d, work, s, hr_begin, hr_end, rows, next);
        }
      }
    }
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
