// SPDX-License-Identifier: MIT
// One time step. The weights are read once, as torch lays them out (packing them would cost as much
// as the product), by threads that each own a slice of the units.
#pragma once

#include "cpu/cells.h"
#include "cpu/row_products.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T, class Cell>
struct Step {
  using Acc = AccOf<T>;
  using V = Vec<Acc>;
  using Rows = Product<T>;
  using Activation = typename Rows::Activation;
  static constexpr int G = Cell::kGates;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kRowGroup = 24;  // batch rows whose gate sums are held at a time
  static constexpr int64_t kGateStride = kLanes + kTileOverhang + 1;
  static constexpr int64_t kRowStride = G * kGateStride;

  const StepParams& params;

  // Work memory of a call: activations as row_products takes them.
  struct Work {
    explicit Work(const StepParams& p)  // for p.B rows at most
        : x(p.B * padded_length<Rows>(p.I)),
          h(p.B * padded_length<Rows>(p.P)),
          unprojected(p.weights.w_hr != nullptr ? p.B * p.H : 0),
          projected(p.weights.w_hr != nullptr ? p.B * padded_length<Rows>(p.H) : 0) {}
    ScratchArray<Activation> x, h;
    ScratchArray<T> unprojected;         // (B, H): o tanh(c)
    ScratchArray<Activation> projected;  // the same, as an activation
  };

  int64_t blocks() const { return (params.H + kLanes - 1) / kLanes; }

  // sums[row][g][lane] = weight row (g, unit + lane) . activation row, for `units` lanes.
  void gate_sums(const void* weight, int64_t K, const Activation* rows, int64_t count, int64_t unit,
                 int64_t units, Acc* sums) const {
    for (int64_t g = 0; g < G; ++g) {
      row_products<Rows>(static_cast<const T*>(weight) + (g * params.H + unit) * K, K, units, K,
                         rows, padded_length<Rows>(K), count, sums + g * kGateStride, kRowStride,
                         true);
    }
  }

  // All rows of one vector of units.
  void block(int64_t index, const Work& work) const {
    const StepParams& p = params;
    const int64_t unit = index * kLanes;
    const int n = static_cast<int>(std::min<int64_t>(kLanes, p.H - unit));
    alignas(64) Acc x_sums[kRowGroup * kRowStride] = {};
    alignas(64) Acc h_sums[kRowGroup * kRowStride] = {};
    V b_ih[G], b_hh[G];
    for (int g = 0; g < G; ++g) {
      const T* bias = static_cast<const T*>(p.weights.b_ih);
      b_ih[g] = bias != nullptr ? load(bias + g * p.H + unit, n) : V(Acc(0));
      bias = static_cast<const T*>(p.weights.b_hh);
      b_hh[g] = bias != nullptr ? load(bias + g * p.H + unit, n) : V(Acc(0));
    }
    T* const out = p.weights.w_hr != nullptr ? work.unprojected.data() : static_cast<T*>(p.h_out);
    for (int64_t first = 0; first < p.B; first += kRowGroup) {
      const int64_t rows = std::min(kRowGroup, p.B - first);
      gate_sums(p.weights.w_ih, p.I, work.x.data() + first * padded_length<Rows>(p.I), rows, unit,
                n, x_sums);
      gate_sums(p.weights.w_hh, p.P, work.h.data() + first * padded_length<Rows>(p.P), rows, unit,
                n, h_sums);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = (first + row) * p.H + unit;
        V x_part[G], h_part[G], saved[Cell::kSaved], h_prev{}, state{};
        for (int g = 0; g < G; ++g) {
          x_part[g] = load(x_sums + row * kRowStride + g * kGateStride) + b_ih[g];
          h_part[g] = load(h_sums + row * kRowStride + g * kGateStride) + b_hh[g];
        }
        const int64_t before = p.from == nullptr ? at : p.from[first + row] * p.H + unit;
        if constexpr (Cell::kSplitHidden) h_prev = load(static_cast<const T*>(p.h) + before, n);
        if constexpr (Cell::kHasCell) state = load(static_cast<const Acc*>(p.c) + before, n);
        const V h = Cell::forward(x_part, h_part, h_prev, state, saved);
        if constexpr (Cell::kHasCell) store(static_cast<Acc*>(p.c_out) + at, state, n);
        store(out + at, h, n);
      }
    }
  }

  // h = W_hr (o tanh(c)), for the member's share of the outputs.
  void project(const Work& work, const Member& member) const {
    constexpr int64_t kSlice = 16;
    const int64_t slices = (params.P + kSlice - 1) / kSlice;
    Acc sums[kRowGroup * (kSlice + kTileOverhang)];
    for (int64_t i = member.begin(slices); i < member.end(slices); ++i) {
      const int64_t count = std::min(kSlice, params.P - i * kSlice);
      for (int64_t first = 0; first < params.B; first += kRowGroup) {
        const int64_t rows = std::min(kRowGroup, params.B - first);
        row_products<Rows>(static_cast<const T*>(params.weights.w_hr) + i * kSlice * params.H,
                           params.H, count, params.H,
                           work.projected.data() + first * padded_length<Rows>(params.H),
                           padded_length<Rows>(params.H), rows, sums, kSlice + kTileOverhang, true);
        for (int64_t row = 0; row < rows; ++row) {
          T* to = static_cast<T*>(params.h_out) + (first + row) * params.P + i * kSlice;
          for (int64_t j = 0; j < count; ++j) {
            to[j] = from_acc<T>(sums[row * (kSlice + kTileOverhang) + j]);
          }
        }
      }
    }
  }

  // The member's share of the rows, to `work`. A barrier stands between this and `run`.
  void prepare(const Work& work, const Member& member) const {
    const StepParams& p = params;
    for (int64_t b = member.begin(p.B); b < member.end(p.B); ++b) {
      pack_activations<Rows>(static_cast<const T*>(p.x) + b * p.x_stride_b, 1, p.I,
                             work.x.data() + b * padded_length<Rows>(p.I));
      const int64_t before = p.from == nullptr ? b : p.from[b];
      pack_activations<Rows>(static_cast<const T*>(p.h) + before * p.P, 1, p.P,
                             work.h.data() + b * padded_length<Rows>(p.P));
    }
  }

  void run(const Work& work, const Member& member) const {
    const StepParams& p = params;
    for (int64_t i = member.begin(blocks()); i < member.end(blocks()); ++i) block(i, work);
    if (p.weights.w_hr == nullptr) return;
    member.barrier->wait();
    const int64_t begin = member.begin(p.B), end = member.end(p.B);
    pack_activations<Rows>(work.unprojected.data() + begin * p.H, end - begin, p.H,
                           work.projected.data() + begin * padded_length<Rows>(p.H));
    member.barrier->wait();
    project(work, member);
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
