// SPDX-License-Identifier: MIT
// One time step. The weights are read once, as torch lays them out: packing them would cost as much
// as the product. A tile is the gates of a unit (or a few units) times a few rows of the batch,
// lanes along k; every dot product is summed in the same order whatever the tile.
#pragma once

#include "cpu/cells.h"
#include "cpu/micro.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// out[r * M + m] = w[r] . x[m]
template <class T, int R, int M>
void dot_tile(const T* const* w, const T* const* x, int64_t K, AccOf<T>* out) {
  using V = Vec<AccOf<T>>;
  constexpr int kLanes = V::kLanes;
  V acc[R][M];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) acc[r][m] = V(AccOf<T>(0));
  }
  const T* w_row[R];
  const T* x_row[M];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) w_row[r] = w[r];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) x_row[m] = x[m];
  constexpr int kChunk = kLanes * kKStep<T>;
  const auto chunk = [&](int64_t k, auto load_at) SEQ2SEQ_EXT_LAMBDA_INLINE {
    decltype(load_at(x_row[0])) xs[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) xs[m] = load_at(x_row[m] + k);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const auto ws = load_at(w_row[r] + k);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        if constexpr (kKStep<T> == 1)
          acc[r][m] = fma(ws, xs[m], acc[r][m]);
        else
          acc[r][m] = dot_pairs(acc[r][m], ws, xs[m]);
      }
    }
  };
  int64_t k = 0;
  for (; k + kChunk <= K; k += kChunk) {
    chunk(k, [](const T* p) SEQ2SEQ_EXT_LAMBDA_INLINE {
      if constexpr (kKStep<T> == 1)
        return load(p);
      else
        return load_pairs(p);
    });
  }
  if (k < K) {
    const int n = static_cast<int>(K - k);
    chunk(k, [n](const T* p) SEQ2SEQ_EXT_LAMBDA_INLINE {
      if constexpr (kKStep<T> == 1)
        return load(p, n);
      else
        return load_pairs(p, n);
    });
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) out[r * M + m] = reduce_add(acc[r][m]);
  }
}

#if defined(SEQ2SEQ_EXT_ISA_AVX512)
constexpr int kDotRows = 4;  // batch rows of a tile
#else
constexpr int kDotRows = 2;
#endif

// out(r, m) for all R weight rows and `rows` batch rows, through use(r, m, value).
template <class T, int R, class Use>
void dot_rows(const T* const* w, const T* x, int64_t x_stride, int64_t rows, int64_t K,
              const Use& use) {
  AccOf<T> out[R * kDotRows];
  const T* tile[kDotRows];
  const auto run = [&](auto size, int64_t m) {
    constexpr int M = decltype(size)::value;
    for (int j = 0; j < M; ++j) tile[j] = x + (m + j) * x_stride;
    dot_tile<T, R, M>(w, tile, K, out);
    for (int r = 0; r < R; ++r) {
      for (int j = 0; j < M; ++j) use(r, m + j, out[r * M + j]);
    }
    return m + M;
  };
  int64_t m = 0;
  while (m + kDotRows <= rows) m = run(std::integral_constant<int, kDotRows>{}, m);
  if constexpr (kDotRows > 2) {
    if (m + 2 <= rows) m = run(std::integral_constant<int, 2>{}, m);
  }
  if (m < rows) run(std::integral_constant<int, 1>{}, m);
}

template <class T, class Cell>
struct Step {
  using Acc = AccOf<T>;
  using V = Vec<Acc>;
  static constexpr int G = Cell::kGates;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kUnitsAtOnce = G == 1 ? 4 : 1;
  static constexpr int kWeightRows = G * kUnitsAtOnce;
  static constexpr int64_t kRowGroup = 32;  // batch rows whose gate sums are held at a time

  const StepParams& params;

  int64_t blocks() const { return (params.H + kLanes - 1) / kLanes; }

  // sums[row][g][lane] = weight row (g, unit) . x[row], for the units of a block and a group of
  // rows.
  void gate_sums(const void* weight, int64_t K, const T* x, int64_t x_stride, int64_t rows,
                 int64_t unit, int64_t units, Acc* sums) const {
    for (int64_t u = 0; u < units; u += kUnitsAtOnce) {
      const T* w[kWeightRows];
      for (int r = 0; r < kWeightRows; ++r) {
        // Past the last unit the last one is computed again; its lane is not used.
        const int64_t at = std::min<int64_t>(unit + u + r % kUnitsAtOnce, params.H - 1);
        w[r] = static_cast<const T*>(weight) + (r / kUnitsAtOnce * params.H + at) * K;
      }
      dot_rows<T, kWeightRows>(w, x, x_stride, rows, K, [&](int r, int64_t row, Acc value) {
        const int64_t lane = u + r % kUnitsAtOnce;
        if (lane < units) sums[(row * G + r / kUnitsAtOnce) * kLanes + lane] = value;
      });
    }
  }

  void block(int64_t index, T* unprojected) const {
    const StepParams& p = params;
    const int64_t unit = index * kLanes;
    const int n = static_cast<int>(std::min<int64_t>(kLanes, p.H - unit));
    alignas(64) Acc x_sums[kRowGroup * G * kLanes] = {};
    alignas(64) Acc h_sums[kRowGroup * G * kLanes] = {};
    const T* const x = static_cast<const T*>(p.x);
    const T* const h = static_cast<const T*>(p.h);
    V b_ih[G], b_hh[G];
    for (int g = 0; g < G; ++g) {
      const bool has = p.weights.b_ih != nullptr;
      b_ih[g] = has ? load(static_cast<const T*>(p.weights.b_ih) + g * p.H + unit, n) : V(Acc(0));
      b_hh[g] = has ? load(static_cast<const T*>(p.weights.b_hh) + g * p.H + unit, n) : V(Acc(0));
    }
    for (int64_t first = 0; first < p.B; first += kRowGroup) {
      const int64_t rows = std::min(kRowGroup, p.B - first);
      gate_sums(p.weights.w_ih, p.I, x + first * p.x_stride_b, p.x_stride_b, rows, unit, n, x_sums);
      gate_sums(p.weights.w_hh, p.P, h + first * p.P, p.P, rows, unit, n, h_sums);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t b = first + row;
        V x_part[G], h_part[G], saved[Cell::kSaved], h_prev{}, state{};
        for (int g = 0; g < G; ++g) {
          x_part[g] = load(x_sums + (row * G + g) * kLanes) + b_ih[g];
          h_part[g] = load(h_sums + (row * G + g) * kLanes) + b_hh[g];
        }
        if constexpr (Cell::kSplitHidden) h_prev = load(h + b * p.P + unit, n);
        if constexpr (Cell::kHasCell)
          state = load(static_cast<const Acc*>(p.c) + b * p.H + unit, n);
        const V out = Cell::forward(x_part, h_part, h_prev, state, saved);
        if constexpr (Cell::kHasCell) store(static_cast<Acc*>(p.c_out) + b * p.H + unit, state, n);
        store((unprojected != nullptr ? unprojected : static_cast<T*>(p.h_out)) + b * p.H + unit,
              out, n);
      }
    }
  }

  void project(const Member& member, const T* unprojected) const {
    constexpr int64_t R = 4;
    const int64_t groups = (params.P + R - 1) / R;
    for (int64_t group = member.begin(groups); group < member.end(groups); ++group) {
      const T* w[R];
      for (int64_t r = 0; r < R; ++r) {
        w[r] = static_cast<const T*>(params.weights.w_hr) +
               std::min(group * R + r, params.P - 1) * params.H;
      }
      dot_rows<T, R>(w, unprojected, params.H, params.B, params.H,
                     [&](int r, int64_t b, Acc value) {
                       const int64_t column = group * R + r;
                       if (column < params.P)
                         static_cast<T*>(params.h_out)[b * params.P + column] = from_acc<T>(value);
                     });
    }
  }

  void run(const Member& member, T* unprojected) const {
    for (int64_t i = member.begin(blocks()); i < member.end(blocks()); ++i) block(i, unprojected);
    if (unprojected == nullptr) return;
    member.barrier->wait();
    project(member, unprojected);
  }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
