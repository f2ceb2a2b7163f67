// SPDX-License-Identifier: MIT
// What follows the backward recurrence: dx = d_gates W_ih, and the parameters' gradients, which are
// products of (N, gates)^T with (N, inputs). Entries are gathered while they are packed, so padding
// and reversal cost nothing.
#pragma once

#include "cpu/backward_state.h"
#include "cpu/math.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T>
struct WeightGradients {
  using State = BackwardState<T>;
  using Direction = typename State::Direction;
  using Acc = AccOf<T>;
  using V = Vec<Acc>;
  static constexpr int kLanes = V::kLanes;
  static constexpr int NV = 4;
  static constexpr int64_t kColumns = NV * kLanes;
  // Entries a pass: a panel of them lives in the L2 cache, and every pass goes over the gradients.
  static constexpr int64_t kBlock = 1024 * 4 / static_cast<int64_t>(sizeof(Acc));

  const State& back;
  const SequenceBackwardParams& params;
  const Schedule& schedule;
  const int64_t I, H, P;
  const int64_t gates, slots;
  const int64_t gate_rows;  // G*H
  const int64_t input_panels;

  explicit WeightGradients(const State& r)
      : back(r),
        params(r.params),
        schedule(r.schedule),
        I(r.I),
        H(r.H),
        P(r.P),
        gates(r.gates),
        slots(r.slots),
        gate_rows(gates * H),
        input_panels((r.I + kColumns - 1) / kColumns) {}

  // The GRU's recurrent dn differs from its input-side dn (kSplitHidden).
  bool splits() const { return back.first_hidden > 0; }

  // A cell that splits keeps its last gate's gradient apart for input and recurrent side, the GRU
  // in slots n, r, z | n: the rows of W_ih in slot order.
  int64_t input_row(int64_t slot_row) const {
    if (!splits()) return slot_row;
    return slot_row < H ? gate_rows - H + slot_row : slot_row - H;
  }
  int64_t hidden_row(int64_t slot_row) const { return slot_row - back.first_hidden * H; }

  // --- dx ---

  void pack_input_weights(int d, const Member& member, T* packed) const {
    const T* w_ih = static_cast<const T*>(params.direction[d].weights.w_ih);
    for (int64_t p = member.begin(input_panels); p < member.end(input_panels); ++p) {
      pack_panel_columns<T, NV>([&](int64_t k) { return w_ih + input_row(k) * I + p * kColumns; },
                                gate_rows, I - p * kColumns,
                                packed + p * panel_size<T, NV>(gate_rows));
    }
  }

  // Rows of dx in direction 0's entry order; direction 1's entry of the same (time, row) is added
  // before rounding.
  void input_gradient(const Direction* const* work, const T* const* packed,
                      const Member& member) const {
    T* dx = static_cast<T*>(params.dx);
    const SequenceShape& shape = params.shape;
    for (int64_t i = member.begin(shape.B); i < member.end(shape.B); ++i) {
      for (int64_t t = schedule.length[i]; t < shape.T; ++t) {
        std::fill_n(dx + (t * shape.B + schedule.order[i]) * I, I, T{});
      }
    }
    alignas(64) Acc tile[kMaxDirections][kMaxTileRows<NV> * kColumns];
    const T* rows[kMaxDirections][kMaxTileRows<NV>];
    T* to[kMaxTileRows<NV>];
    for (int64_t p = 0; p < input_panels; ++p) {
      const int64_t last = member.end(schedule.N);
      int64_t s = std::upper_bound(schedule.offset.begin(), schedule.offset.end(),
                                   member.begin(schedule.N)) -
                  schedule.offset.begin() - 1;
      for (int64_t entry = member.begin(schedule.N), tile_rows; entry < last; entry += tile_rows) {
        const int64_t wanted = std::min<int64_t>(kMaxTileRows<NV>, last - entry);
        for (int64_t m = 0; m < wanted; ++m) {
          while (entry + m >= schedule.offset[s + 1]) ++s;
          const int64_t i = entry + m - schedule.offset[s];
          const int64_t t = schedule.time(s, i, shape.reverse[0]);
          to[m] = dx + (t * shape.B + schedule.order[i]) * I;
          rows[0][m] = back.d_gates_row(*work[0], s, i);
          if (shape.directions == 2) {
            const int64_t other = shape.reverse[1] ? schedule.length[i] - 1 - t : t;
            rows[1][m] = back.d_gates_row(*work[1], other, i);
          }
        }
        tile_rows = 0;
        for (int d = 0; d < shape.directions; ++d) {
          tile_rows = panel_product<T, NV>(rows[d], wanted, gate_rows,
                                           packed[d] + p * panel_size<T, NV>(gate_rows), nullptr,
                                           tile[d], kColumns);
        }
        while (s > 0 && entry + tile_rows < schedule.offset[s]) --s;
        for (int64_t m = 0; m < tile_rows; ++m) {
          for (int v = 0; v < NV; ++v) {
            const int64_t column = p * kColumns + v * kLanes;
            if (column >= I) break;
            V sum = load(tile[0] + m * kColumns + v * kLanes);
            if (shape.directions == 2) sum = sum + load(tile[1] + m * kColumns + v * kLanes);
            store(to[m] + column, sum, static_cast<int>(std::min<int64_t>(kLanes, I - column)));
          }
        }
      }
    }
  }

  // --- parameters ---

  // One product out[map(r)][:] += sum over entries of left(entry)[r] * right(entry)[:], for rows r
  // of the left side.
  struct Product {
    int64_t width;  // columns of the right side
    int64_t first_row, last_row;
    Acc* out;
  };

  // Where the host's BLAS makes dW_ih and dW_hh: for bf16, whose own product here is slower than
  // oneDNN's (and far slower than oneDNN's on a processor with matrix units). For float and double
  // the products below are faster with AVX-512, and never depend on the number of threads.
  static bool use_blas(const Runtime& runtime) {
    return runtime.gemm != nullptr && std::is_same_v<T, BFloat16>;
  }

  // Work memory of one direction, shared by its team.
  struct Buffers {
    Buffers(const WeightGradients& f, int members)
        : right(kBlock *
                std::max(padded(f.I) + padded(f.P), f.back.has_projection() ? 2 * padded(f.H) : 0)),
          left(members * kBlock * std::max<int64_t>(f.slots * f.H, f.P)),
          w_ih(std::is_same_v<T, Acc> ? 0 : f.gate_rows * f.I),
          w_hh(std::is_same_v<T, Acc> ? 0 : f.gate_rows * f.P),
          w_hr(std::is_same_v<T, Acc> ? 0 : f.P * f.H),
          b(2 * f.gate_rows) {}
    static int64_t padded(int64_t width) { return (width + kColumns - 1) / kColumns * kColumns; }
    ScratchArray<T> right;  // packed panels of x, of h_prev, of the unprojected output
    ScratchArray<T> left;   // transposed gate gradients: (rows, kBlock), a part per member
    ScratchArray<Acc> w_ih, w_hh, w_hr;  // fp32 sums where the gradient itself is narrower
    ScratchArray<Acc> b;
  };

  // The entries [first, first + count) as (s, i) pairs: calls use(k, s, i).
  template <class Use>
  void for_entries(int64_t first, int64_t count, const Use& use) const {
    int64_t s = std::upper_bound(schedule.offset.begin(), schedule.offset.end(), first) -
                schedule.offset.begin() - 1;
    for (int64_t k = 0; k < count; ++k) {
      while (first + k >= schedule.offset[s + 1]) ++s;
      use(k, s, first + k - schedule.offset[s]);
    }
  }

  const T* x_row(int d, int64_t s, int64_t i) const {
    return static_cast<const T*>(params.x) +
           schedule.time(s, i, params.shape.reverse[d]) * params.x_stride_t +
           schedule.order[i] * params.x_stride_b;
  }

  // Packs `rows` (kBlock pointers) of the right side into panels; the member packs its share of
  // them.
  void pack_right(const T* const* rows, int64_t count, int64_t width, const Member& member,
                  T* packed) const {
    const int64_t panels = (width + kColumns - 1) / kColumns;
    for (int64_t p = member.begin(panels); p < member.end(panels); ++p) {
      pack_panel_columns<T, NV>([&](int64_t k) { return rows[k] + p * kColumns; }, count,
                                width - p * kColumns, packed + p * kColumns * kBlock);
    }
  }

  // out[map(r)] (+)= left[r] @ packed, for r in [first, last).
  template <class Map>
  void accumulate(const T* left, int64_t left_first, int64_t count, const T* packed, int64_t width,
                  int64_t first, int64_t last, const Map& map, bool fresh, Acc* out) const {
    alignas(64) Acc tile[kMaxTileRows<NV> * kColumns];
    const T* rows[kMaxTileRows<NV>];
    for (int64_t p = 0; p * kColumns < width; ++p) {
      for (int64_t r = first, tile_rows; r < last; r += tile_rows) {
        const int64_t wanted = std::min<int64_t>(kMaxTileRows<NV>, last - r);
        for (int64_t m = 0; m < wanted; ++m) rows[m] = left + (r + m - left_first) * kBlock;
        tile_rows = panel_product<T, NV>(rows, wanted, count, packed + p * kColumns * kBlock,
                                         nullptr, tile, kColumns);
        for (int64_t m = 0; m < tile_rows; ++m) {
          Acc* to = out + map(r + m) * width;
          for (int v = 0; v < NV; ++v) {
            const int64_t column = p * kColumns + v * kLanes;
            if (column >= width) break;
            const int n = static_cast<int>(std::min<int64_t>(kLanes, width - column));
            V sum = load(tile + m * kColumns + v * kLanes);
            if (!fresh) sum = sum + load(to + column, n);
            store(to + column, sum, n);
          }
        }
      }
    }
  }

  static Acc row_sum(const T* row, int64_t count) {
    V sum(Acc(0));
    for (int64_t k = 0; k < count; k += kLanes) {
      sum = sum + load(row + k, static_cast<int>(std::min<int64_t>(kLanes, count - k)));
    }
    return reduce_add(sum);
  }

  static Acc* sums(void* grad, const ScratchArray<Acc>& wide) {
    if (grad == nullptr) return nullptr;
    if constexpr (std::is_same_v<T, Acc>)
      return static_cast<Acc*>(grad);
    else
      return wide.data();
  }

  static void narrow(const Acc* from, int64_t begin, int64_t end, void* grad) {
    if (grad == nullptr || std::is_same_v<T, Acc>) return;
    for (int64_t i = begin; i < end; i += kLanes) {
      const int n = static_cast<int>(std::min<int64_t>(kLanes, end - i));
      store(static_cast<T*>(grad) + i, load(from + i, n), n);
    }
  }

  // The right sides as matrices, for BLAS: x as (N, I) and h_prev as (N, P), in entry order.
  void gather(int d, const Member& member, T* x, T* h) const {
    const int64_t begin = member.begin(schedule.N), end = member.end(schedule.N);
    if (begin == end) return;
    for_entries(begin, end - begin, [&](int64_t k, int64_t s, int64_t i) {
      std::copy_n(x_row(d, s, i), I, x + (begin + k) * I);
      std::copy_n(back.h_before(d, s, i), P, h + (begin + k) * P);
    });
  }

  // dW_ih and dW_hh by the host's BLAS; false if it declines.
  bool blas_products(int d, const Direction& work, const T* x, const T* h,
                     const Runtime& runtime) const {
    // Rows [row, row + count * H) of `out` = (gate gradients from slot on)^T @ right.
    const auto product = [&](int64_t slot, int64_t count, const T* right, int64_t width, void* out,
                             int64_t row) {
      if (out == nullptr) return true;
      const T* const left = work.d_gates.data() + slot * H;
      T* const to = static_cast<T*>(out) + row * width;
      constexpr DType dtype = std::is_same_v<T, BFloat16> ? DType::kBFloat16
                              : sizeof(T) == 8            ? DType::kFloat64
                                                          : DType::kFloat32;
      return runtime.gemm({dtype, count * H, width, schedule.N, left, 1, slots * H, right, width, 1,
                           to, width, false});
    };
    const RecurrentWeightGrads& grads = params.direction[d].grads;
    const bool input = splits() ? product(1, gates - 1, x, I, grads.w_ih, 0) &&
                                      product(0, 1, x, I, grads.w_ih, gate_rows - H)
                                : product(0, gates, x, I, grads.w_ih, 0);
    return input && product(back.first_hidden, gates, h, P, grads.w_hh, 0);
  }

  // One member's part of one direction's parameter gradients: those that `grads` asks for.
  void run(int d, const Direction& work, const RecurrentWeightGrads& grads, Buffers& buffers,
           const Member& member) const {
    const int64_t rows = slots * H;
    const int64_t first = member.begin(rows), last = member.end(rows);
    const int64_t input_last = std::min<int64_t>(last, gate_rows);
    const int64_t hidden_first = std::max<int64_t>(first, back.first_hidden * H);
    T* left = buffers.left.data() + member.index * kBlock * std::max<int64_t>(slots * H, P);
    T* const x_panels = buffers.right.data();
    T* const h_panels = x_panels + kBlock * Buffers::padded(I);
    Acc* const w_ih = sums(grads.w_ih, buffers.w_ih);
    Acc* const w_hh = sums(grads.w_hh, buffers.w_hh);
    Acc* const b_ih = buffers.b.data();
    Acc* const b_hh = b_ih + gate_rows;
    const T* pointers[kBlock];
    const auto to_input = [this](int64_t r) { return input_row(r); };
    const auto to_hidden = [this](int64_t r) { return hidden_row(r); };

    for (int64_t start = 0; start < schedule.N; start += kBlock) {
      const int64_t count = std::min(kBlock, schedule.N - start);
      const bool fresh = start == 0;
      if (w_ih != nullptr) {
        for_entries(start, count,
                    [&](int64_t k, int64_t s, int64_t i) { pointers[k] = x_row(d, s, i); });
        pack_right(pointers, count, I, member, x_panels);
      }
      if (w_hh != nullptr) {
        for_entries(start, count,
                    [&](int64_t k, int64_t s, int64_t i) { pointers[k] = back.h_before(d, s, i); });
        pack_right(pointers, count, P, member, h_panels);
      }
      for_entries(start, count, [&](int64_t k, int64_t s, int64_t i) {
        pointers[k] = back.d_gates_row(work, s, i);
      });
      transpose_rows(pointers, count, first, last, left, kBlock);
      member.barrier->wait();
      if (w_ih != nullptr && first < input_last) {
        accumulate(left, first, count, x_panels, I, first, input_last, to_input, fresh, w_ih);
      }
      if (w_hh != nullptr && hidden_first < last) {
        accumulate(left, first, count, h_panels, P, hidden_first, last, to_hidden, fresh, w_hh);
      }
      if (grads.b_ih != nullptr || grads.b_hh != nullptr) {
        for (int64_t r = first; r < last; ++r) {
          const Acc sum = row_sum(left + (r - first) * kBlock, count);
          if (r < input_last) b_ih[input_row(r)] = fresh ? sum : b_ih[input_row(r)] + sum;
          if (r >= hidden_first) b_hh[hidden_row(r)] = fresh ? sum : b_hh[hidden_row(r)] + sum;
        }
      }
      member.barrier->wait();
    }
    if (grads.w_hr != nullptr) projection_gradient(d, work, buffers, member);
    finish(grads, w_ih, w_hh, b_ih, b_hh, member);
  }

  // dW_hr = d_hidden^T @ (o tanh(c)): the cell's output is made again from what the forward saved.
  void projection_gradient(int d, const Direction& work, Buffers& buffers,
                           const Member& member) const {
    const auto& direction = params.direction[d];
    Acc* const w_hr = sums(direction.grads.w_hr, buffers.w_hr);
    T* const left = buffers.left.data() + member.index * kBlock * std::max<int64_t>(slots * H, P);
    T* const panels = buffers.right.data();
    T* const outputs = panels + kBlock * Buffers::padded(H);  // (kBlock, H)
    const T* pointers[kBlock];
    for (int64_t start = 0; start < schedule.N; start += kBlock) {
      const int64_t count = std::min(kBlock, schedule.N - start);
      for (int64_t k = member.begin(count); k < member.end(count); ++k) {
        const T* o = static_cast<const T*>(direction.saved_gates) + ((start + k) * slots + 3) * H;
        const Acc* c = static_cast<const Acc*>(direction.saved_cells) + (start + k) * H;
        for (int64_t unit = 0; unit < H; unit += kLanes) {
          const int n = static_cast<int>(std::min<int64_t>(kLanes, H - unit));
          store(outputs + k * H + unit, load(o + unit, n) * Math<Acc>::tanh(load(c + unit, n)), n);
        }
      }
      member.barrier->wait();
      for (int64_t k = 0; k < count; ++k) pointers[k] = outputs + k * H;
      pack_right(pointers, count, H, member, panels);
      for (int64_t k = 0; k < count; ++k) pointers[k] = work.d_hidden.data() + (start + k) * P;
      transpose_rows(pointers, count, member.begin(P), member.end(P), left, kBlock);
      member.barrier->wait();
      accumulate(
          left, member.begin(P), count, panels, H, member.begin(P), member.end(P),
          [](int64_t r) { return r; }, start == 0, w_hr);
      member.barrier->wait();
    }
    narrow(w_hr, member.begin(P * H), member.end(P * H), direction.grads.w_hr);
  }

  // Rounds the sums to the gradients' type; everything is zero where no entry exists.
  void finish(const RecurrentWeightGrads& grads, Acc* w_ih, Acc* w_hh, Acc* b_ih, Acc* b_hh,
              const Member& member) const {
    if (schedule.N == 0) {
      const auto clear = [&](void* grad, int64_t count) {
        if (grad == nullptr) return;
        std::fill(static_cast<T*>(grad) + member.begin(count),
                  static_cast<T*>(grad) + member.end(count), T{});
      };
      clear(grads.w_ih, gate_rows * I);
      clear(grads.w_hh, gate_rows * P);
      clear(grads.b_ih, gate_rows);
      clear(grads.b_hh, gate_rows);
      clear(grads.w_hr, P * H);
      return;
    }
    narrow(w_ih, member.begin(gate_rows * I), member.end(gate_rows * I), grads.w_ih);
    narrow(w_hh, member.begin(gate_rows * P), member.end(gate_rows * P), grads.w_hh);
    for (int64_t r = member.begin(gate_rows); r < member.end(gate_rows); ++r) {
      if (grads.b_ih != nullptr) static_cast<T*>(grads.b_ih)[r] = from_acc<T>(b_ih[r]);
      if (grads.b_hh != nullptr) static_cast<T*>(grads.b_hh)[r] = from_acc<T>(b_hh[r]);
    }
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
