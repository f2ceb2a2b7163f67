// SPDX-License-Identifier: MIT
// The product at the heart of the recurrent kernels: a few rows times one packed panel of weight columns, accumulators
// in registers. A panel is NV vectors wide and stored k by k, in the order in which it is read.
//
// Every output is one chain of fused multiply-adds in ascending k, whatever the number of rows in the tile: a row's
// result does not depend on its neighbours, bit for bit.
#pragma once

#include "cpu/simd.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// bf16 is stored and multiplied in pairs along k.
template <class T>
constexpr int kKStep = std::is_same_v<T, BFloat16> ? 2 : 1;

template <class T>
constexpr int kLanesOf = Vec<AccOf<T>>::kLanes;

template <class T>
constexpr int64_t padded_k(int64_t K) {
  return (K + kKStep<T> - 1) / kKStep<T> * kKStep<T>;
}

// Elements of one packed panel.
template <class T, int NV>
constexpr int64_t panel_size(int64_t K) {
  return padded_k<T>(K) * NV * kLanesOf<T>;
}

// Rows a tile may have, so that accumulators, weights and a broadcast fit the register file (32 or 16 vectors).
template <int NV>
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
constexpr int kMaxTileRows = NV == 3 ? 8 : 6;
#else
constexpr int kMaxTileRows = NV == 3 ? 4 : 3;
#endif

template <class T>
SEQ2SEQ_EXT_INLINE uint32_t load_pair(const T* p, bool single) {
  uint32_t pair = 0;
  std::memcpy(&pair, p, single ? 2 : 4);
  return pair;
}

// out[m][v] = init[v] + sum_k rows[m][k] * panel[k][v]
template <class T, int NV, int MR>
void panel_product_tile(const T* const* rows, int64_t K, const T* panel, const AccOf<T>* init, AccOf<T>* out,
                        int64_t out_stride) {
  using V = Vec<AccOf<T>>;
  constexpr int kLanes = V::kLanes;
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[m][v] = init == nullptr ? V(AccOf<T>(0)) : load(init + v * kLanes);
  }
  const T* row[MR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) row[m] = rows[m];
  if constexpr (kKStep<T> == 1) {
    for (int64_t k = 0; k < K; ++k) {
      V w[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) w[v] = load(panel + v * kLanes);
      panel += NV * kLanes;
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        const V a(row[m][k]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[m][v] = fma(a, w[v], acc[m][v]);
      }
    }
  } else {
    const auto step = [&](int64_t k, bool single) SEQ2SEQ_EXT_LAMBDA_INLINE {
      PairVec w[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) w[v] = load_pairs(panel + v * 2 * kLanes);
      panel += NV * 2 * kLanes;
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        const PairVec a = broadcast_pair(load_pair(row[m] + k, single));
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[m][v] = dot_pairs(acc[m][v], a, w[v]);
      }
    };
    int64_t k = 0;
    for (; k + 2 <= K; k += 2) step(k, false);
    if (k < K) step(k, true);
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(out + m * out_stride + v * kLanes, acc[m][v]);
  }
}

// As many of the `count` rows as one tile takes; returns how many.
template <class T, int NV>
int panel_product(const T* const* rows, int64_t count, int64_t K, const T* panel, const AccOf<T>* init, AccOf<T>* out,
                  int64_t out_stride) {
  constexpr int kMax = kMaxTileRows<NV>;
  if (count >= kMax) {
    panel_product_tile<T, NV, kMax>(rows, K, panel, init, out, out_stride);
    return kMax;
  }
  if constexpr (kMax > 4) {
    if (count >= 4) {
      panel_product_tile<T, NV, 4>(rows, K, panel, init, out, out_stride);
      return 4;
    }
  }
  if (count >= 2) {
    panel_product_tile<T, NV, 2>(rows, K, panel, init, out, out_stride);
    return 2;
  }
  panel_product_tile<T, NV, 1>(rows, K, panel, init, out, out_stride);
  return 1;
}

// Position of (k, column) in a packed panel.
template <class T, int NV>
SEQ2SEQ_EXT_INLINE int64_t panel_index(int64_t k, int64_t column) {
  constexpr int s = kKStep<T>;
  return (k / s * NV * kLanesOf<T> + column) * s + k % s;
}

// Packs the columns [0, width) of a panel from rows of `source`: column j is source row `row_of(j)` (K elements each), or
// zero if that is negative. This is a transposition.
template <class T, int NV, class RowOf>
void pack_panel_rows(const T* source, int64_t source_stride, int64_t K, const RowOf& row_of, T* panel) {
  constexpr int64_t kColumns = NV * kLanesOf<T>;
  constexpr int64_t kBlock = 16;  // k's at a time: the written part of the panel stays in L1
  for (int64_t k0 = 0; k0 < padded_k<T>(K); k0 += kBlock) {
    const int64_t k1 = std::min(k0 + kBlock, padded_k<T>(K));
    for (int64_t j = 0; j < kColumns; ++j) {
      const int64_t row = row_of(j);
      for (int64_t k = k0; k < k1; ++k) {
        panel[panel_index<T, NV>(k, j)] = row >= 0 && k < K ? source[row * source_stride + k] : T{};
      }
    }
  }
}

// Packs the columns [first, first + NV * lanes) of the (K, N) matrix `source`, zero past N.
template <class T, int NV>
void pack_panel_columns(const T* source, int64_t source_stride, int64_t K, int64_t N, int64_t first, T* panel) {
  constexpr int64_t kColumns = NV * kLanesOf<T>;
  const int64_t width = std::min(kColumns, N - first);
  for (int64_t k = 0; k < padded_k<T>(K); ++k) {
    for (int64_t j = 0; j < kColumns; ++j) {
      panel[panel_index<T, NV>(k, j)] = j < width && k < K ? source[k * source_stride + first + j] : T{};
    }
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
