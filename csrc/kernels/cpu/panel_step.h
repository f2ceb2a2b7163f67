// SPDX-License-Identifier: MIT
// One time step from weights in panels, step after step in work memory that stays. Panels are those
// of the sequence kernel, a panel all the gates of kUnits units, and so are the sums: a step is a
// sequence of length one, to the bit.
#pragma once

#include "cpu/panels.h"
#include "cpu/sequence_forward.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T, class Cell>
class PanelStep {
 public:
  using Acc = AccOf<T>;
  using V = Vec<Acc>;
  using Pass = SequenceForward<T, Cell>;
  static constexpr int G = Cell::kGates, NV = Pass::NV, kLanes = V::kLanes;
  static constexpr int kUnitVecs = Pass::kUnitVecs, kGroup = kMaxTileRows<NV>;
  static constexpr int64_t kUnits = Pass::kUnits, kColumns = Pass::kColumns;
  static constexpr int kOutputVecs = Pass::kProjectionVecs;  // of w_hr
  static constexpr int kOutputGroup = kMaxTileRows<kOutputVecs>;

  // p: kept; B is the most rows there will be, and may change between runs, as pointers may.
  explicit PanelStep(const StepParams& p)
      : p_(p),
        panels_((p.H + kUnits - 1) / kUnits),
        x_(p.B, p.I),
        h_(p.B, p.P),
        unprojected_(projects() ? p.B * p.H : 0),
        projected_(projects() ? p.B : 0, p.H),
        x_bias_(panels_ * kColumns),
        h_bias_(panels_ * kUnits) {
    for (int64_t i = 0; i < panels_ * kColumns; ++i) {
      const int64_t column = i % kColumns, gate = column / kUnits;
      const int64_t unit = i / kColumns * kUnits + column % kUnits;
      Acc bias = 0, recurrent = 0;
      if (unit < p.H && p.weights.b_ih != nullptr) {
        bias = to_acc(static_cast<const T*>(p.weights.b_ih)[gate * p.H + unit]);
        recurrent = to_acc(static_cast<const T*>(p.weights.b_hh)[gate * p.H + unit]);
      }
      const bool splits = Cell::kSplitHidden && gate == G - 1;
      x_bias_[i] = splits ? bias : bias + recurrent;
      if (splits) h_bias_[unit] = recurrent;
    }
  }

  // The member's share of the rows. A barrier stands between this and `run`.
  void prepare(const Member& member) const {
    for (int64_t b = member.begin(p_.B); b < member.end(p_.B); ++b) {
      const int64_t before = p_.from == nullptr ? b : p_.from[b];
      x_.pack(static_cast<const T*>(p_.x) + b * p_.x_stride_b, b, p_.B);
      h_.pack(static_cast<const T*>(p_.h) + before * p_.P, b, p_.B);
    }
  }

  void run(const Member& member) const {
    // Few rows: two panels at once.
    const int64_t together = 2 * p_.B <= kGroup ? 2 : 1;
    const int64_t end = member.end(panels_);
    for (int64_t p = member.begin(panels_); p < end; p += together) {
      block(p, std::min(together, end - p));
    }
    if (!projects()) return;
    member.barrier->wait();
    for (int64_t b = member.begin(p_.B); b < member.end(p_.B); ++b) {
      projected_.pack(unprojected_.data() + b * p_.H, b, p_.B);
    }
    member.barrier->wait();
    const int64_t outputs = (p_.P + kOutputs - 1) / kOutputs;
    for (int64_t p = member.begin(outputs); p < member.end(outputs); ++p) project(p);
  }

 private:
  static constexpr int64_t kOutputs = Pass::kProjectionColumns;

  bool projects() const { return p_.hr_panels != nullptr; }

  // h = W_hr (o tanh(c)): all rows of one panel.
  void project(int64_t panel) const {
    const T* weights =
        static_cast<const T*>(p_.hr_panels) + panel * panel_size<T, kOutputVecs>(p_.H);
    alignas(64) Acc sums[kOutputGroup * kOutputs];
    for (int64_t b = 0; b < p_.B; b += kOutputGroup) {
      const int64_t rows = std::min<int64_t>(kOutputGroup, p_.B - b);
      const GroupOf group{b / kOutputGroup, (p_.B + kOutputGroup - 1) / kOutputGroup};
      grouped_product<T, kOutputVecs>(rows, weights, 1, p_.H, projected_.group(b),
                                      static_cast<const Acc*>(nullptr), group, sums, kOutputs);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < kOutputs; j += kLanes) {
          const int64_t at = panel * kOutputs + j;
          const int n = static_cast<int>(std::min<int64_t>(kLanes, p_.P - at));
          if (n <= 0) break;
          store(static_cast<T*>(p_.h_out) + (b + i) * p_.P + at, load(sums + i * kOutputs + j), n);
        }
      }
    }
  }

  // All rows of one panel, or two.
  void block(int64_t first, int64_t panels) const {
    const T* const w_ih = static_cast<const T*>(p_.ih_panels) + first * panel_size<T, NV>(p_.I);
    const T* const w_hh = static_cast<const T*>(p_.hh_panels) + first * panel_size<T, NV>(p_.P);
    constexpr int64_t kStride = 2 * kColumns;
    alignas(64) Acc x_parts[kGroup * kStride];
    alignas(64) Acc h_parts[kGroup * kStride];
    for (int64_t b = 0; b < p_.B; b += kGroup) {
      const int64_t rows = std::min<int64_t>(kGroup, p_.B - b);
      const GroupOf group{b / kGroup, (p_.B + kGroup - 1) / kGroup};
      grouped_product<T, NV>(rows, w_ih, panels, p_.I, x_.group(b),
                             x_bias_.data() + first * kColumns, group, x_parts, kStride);
      grouped_product<T, NV>(rows, w_hh, panels, p_.P, h_.group(b),
                             static_cast<const Acc*>(nullptr), group, h_parts, kStride);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < panels; ++j) {
          gates(b + i, first + j, x_parts + i * kStride + j * kColumns,
                h_parts + i * kStride + j * kColumns);
        }
      }
    }
  }

  SEQ2SEQ_EXT_INLINE void gates(int64_t b, int64_t panel, const Acc* x_parts,
                                const Acc* h_parts) const {
#pragma GCC unroll 4
    for (int u = 0; u < kUnitVecs; ++u) {
      const int64_t unit = panel * kUnits + u * kLanes;
      const int n = static_cast<int>(std::min<int64_t>(kLanes, p_.H - unit));
      if (n <= 0) return;
      V x_part[G], h_part[G], saved[Cell::kSaved], h_prev{}, state{};
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        x_part[g] = load(x_parts + (g * kUnitVecs + u) * kLanes);
        h_part[g] = load(h_parts + (g * kUnitVecs + u) * kLanes);
      }
      if constexpr (Cell::kSplitHidden) {
        h_part[G - 1] = h_part[G - 1] + load(h_bias_.data() + unit);
      }
      const int64_t at = b * p_.H + unit;
      const int64_t before = p_.from == nullptr ? at : p_.from[b] * p_.H + unit;
      if constexpr (Cell::kSplitHidden) h_prev = load(static_cast<const T*>(p_.h) + before, n);
      if constexpr (Cell::kHasCell) state = load(static_cast<const Acc*>(p_.c) + before, n);
      const V h = Cell::forward(x_part, h_part, h_prev, state, saved);
      if constexpr (Cell::kHasCell) store(static_cast<Acc*>(p_.c_out) + at, state, n);
      store((projects() ? unprojected_.data() : static_cast<T*>(p_.h_out)) + at, h, n);
    }
  }

  const StepParams& p_;
  const int64_t panels_;
  const GroupedRows<T, kGroup> x_, h_;
  const ScratchArray<T> unprojected_;  // (B, H): o tanh(c)
  const GroupedRows<T, kOutputGroup> projected_;
  const ScratchArray<Acc> x_bias_, h_bias_;
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
