// SPDX-License-Identifier: MIT
// The product at the heart of the recurrent kernels: a few rows times one packed panel of weight
// columns, accumulators in registers. A panel is NV vectors wide and stored k by k, in the order in
// which it is read.
//
// Every output is summed in one order, whatever the number of rows in the tile: a row's result does
// not depend on its neighbours, bit for bit.
#pragma once

#include "cpu/simd.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// Rows of `lane` values a[0], a[1], ... and b alternating: a0 b0 a1 b1 ..., the low or the high
// half of it.
template <class T, bool kHigh>
SEQ2SEQ_EXT_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b) {
  constexpr int n = Vec<T>::kLanes;
  typename Vec<T>::Int order;
  for (int i = 0; i < n; ++i) order[i] = (kHigh ? n / 2 : 0) + i / 2 + i % 2 * n;
  return {__builtin_shuffle(a.v, b.v, order)};
}

// to[i][j] = rows[j][i], lanes x lanes. Interleaving rows i and i + n/2, log2(n) times over, is a
// transposition.
template <class T>
SEQ2SEQ_EXT_INLINE void transpose_block(const T* const* rows, T* to, int64_t to_stride) {
  constexpr int n = Vec<T>::kLanes;
  Vec<T> a[n], b[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) a[i] = load(rows[i]);
#pragma GCC unroll 4
  for (int stage = 1; stage < n; stage *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      b[2 * i] = interleave<T, false>(a[i], a[i + n / 2]);
      b[2 * i + 1] = interleave<T, true>(a[i], a[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) a[i] = b[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(to + i * to_stride, a[i]);
}

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

// Rows a tile may have, so that accumulators, weights and a broadcast fit the register file (32 or
// 16 vectors).
template <int NV>
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
constexpr int kMaxTileRows = NV == 3 ? 8 : 6;
#else
constexpr int kMaxTileRows = NV == 3 ? 4 : 2;
#endif

template <class T>
SEQ2SEQ_EXT_INLINE uint32_t load_pair(const T* p, bool single) {
  uint32_t pair = 0;
  std::memcpy(&pair, p, single ? 2 : 4);
  return pair;
}

// Terms summed in one chain before the chain joins the total, which lies in memory. Chains keep the
// rounding error of a sum of n terms near sqrt(kChain + n / kChain) units instead of sqrt(n); a
// shorter chain costs a pass over the tile in memory the more often (a 4 % of the multiply-adds
// at 32, and twice that for pairs).
template <class T>
constexpr int64_t kChain = 128 * kKStep<T>;

// out[m][v] = init[v] + sum_k rows[m][k] * panel[k][v]
// With kFetch a cache line of `ahead` a step of k is fetched into the second-level cache for later.
template <class T, int NV, int MR, bool kFetch = false>
void panel_product_tile(const T* const* rows, int64_t K, const T* panel, const AccOf<T>* init,
                        AccOf<T>* out, int64_t out_stride, const char* ahead = nullptr) {
  using V = Vec<AccOf<T>>;
  constexpr int kLanes = V::kLanes;
  const T* row[MR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) row[m] = rows[m];
  int64_t k = 0;
  do {
    const int64_t end = std::min(k + kChain<T>, K);
    const bool first = k == 0;
    V acc[MR][NV];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[m][v] = first && init != nullptr ? load(init + v * kLanes) : V(AccOf<T>(0));
      }
    }
    if constexpr (kKStep<T> == 1) {
      for (; k < end; ++k) {
        V w[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) w[v] = load(panel + v * kLanes);
        panel += NV * kLanes;
        if constexpr (kFetch) __builtin_prefetch((ahead += 64), 0, 2);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          const V a(row[m][k]);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) acc[m][v] = fma(a, w[v], acc[m][v]);
        }
      }
    } else {
      const auto add_pair = [&](bool single) SEQ2SEQ_EXT_LAMBDA_INLINE {
        PairVec w[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) w[v] = load_pairs(panel + v * 2 * kLanes);
        panel += NV * 2 * kLanes;
        if constexpr (kFetch) __builtin_prefetch((ahead += 64), 0, 2);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          const PairVec a = broadcast_pair(load_pair(row[m] + k, single));
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) acc[m][v] = dot_pairs(acc[m][v], a, w[v]);
        }
      };
      for (; k + 2 <= end; k += 2) add_pair(false);
      if (k < end) {  // only ever the last k
        add_pair(true);
        ++k;
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        AccOf<T>* to = out + m * out_stride + v * kLanes;
        store(to, first ? acc[m][v] : load(to) + acc[m][v]);
      }
    }
  } while (k < K);
}

// As many of the `count` rows as one tile takes; returns how many.
template <class T, int NV, bool kFetch = false>
int panel_product(const T* const* rows, int64_t count, int64_t K, const T* panel,
                  const AccOf<T>* init, AccOf<T>* out, int64_t out_stride,
                  const char* ahead = nullptr) {
  const auto tile = [&](auto size) SEQ2SEQ_EXT_LAMBDA_INLINE {
    constexpr int MR = decltype(size)::value;
    panel_product_tile<T, NV, MR, kFetch>(rows, K, panel, init, out, out_stride, ahead);
    return MR;
  };
  constexpr int kMax = kMaxTileRows<NV>;
  if (count >= kMax) return tile(std::integral_constant<int, kMax>());
  if constexpr (kMax > 4) {
    if (count >= 4) return tile(std::integral_constant<int, 4>());
  }
  if (count >= 2) return tile(std::integral_constant<int, 2>());
  return tile(std::integral_constant<int, 1>());
}

// Position of (k, column) in a packed panel.
template <class T, int NV>
SEQ2SEQ_EXT_INLINE int64_t panel_index(int64_t k, int64_t column) {
  constexpr int s = kKStep<T>;
  return (k / s * NV * kLanesOf<T> + column) * s + k % s;
}

// Packs a panel from rows of `source`: column j is source row row_of(j) (K elements), or zero if
// that is negative. This is a transposition, of elements or (bf16) of pairs of them.
template <class T, int NV, class RowOf>
void pack_panel_rows(const T* source, int64_t source_stride, int64_t K, const RowOf& row_of,
                     T* panel) {
  using E = AccOf<T>;  // what is moved: as wide as an element, or a pair
  constexpr int kLanes = kLanesOf<T>;
  static const E zeros[kLanes] = {};
  const int64_t blocks = K / (kLanes * kKStep<T>);
  for (int v = 0; v < NV; ++v) {
    const E* rows[kLanes];
    int64_t step[kLanes];  // a row of zeros does not advance
    for (int j = 0; j < kLanes; ++j) {
      const int64_t row = row_of(v * kLanes + j);
      rows[j] = row < 0 ? zeros : reinterpret_cast<const E*>(source + row * source_stride);
      step[j] = row < 0 ? 0 : kLanes;
    }
    for (int64_t block = 0; block < blocks; ++block) {
      transpose_block<E>(rows, reinterpret_cast<E*>(panel) + (block * kLanes * NV + v) * kLanes,
                         NV * kLanes);
      for (int j = 0; j < kLanes; ++j) rows[j] += step[j];
    }
    for (int64_t k = blocks * kLanes * kKStep<T>; k < padded_k<T>(K); ++k) {
      for (int j = 0; j < kLanes; ++j) {
        const int64_t row = row_of(v * kLanes + j);
        panel[panel_index<T, NV>(k, v * kLanes + j)] =
            row >= 0 && k < K ? source[row * source_stride + k] : T{};
      }
    }
  }
}

// Packs a panel whose row k is the `width` elements at row_at(k), zero past them.
template <class T, int NV, class RowAt>
void pack_panel_columns(const RowAt& row_at, int64_t K, int64_t width, T* panel) {
  constexpr int64_t kColumns = NV * kLanesOf<T>;
  width = std::min(width, kColumns);
  for (int64_t k = 0; k < K; ++k) {
    const T* row = row_at(k);
    if (kKStep<T> == 1) {
      T* to = panel + k * kColumns;
      if (width == kColumns) {
        std::memcpy(to, row, kColumns * sizeof(T));
      } else {
        std::copy_n(row, width, to);
        std::fill_n(to + width, kColumns - width, T{});
      }
      continue;
    }
    for (int64_t j = 0; j < width; ++j) panel[panel_index<T, NV>(k, j)] = row[j];
    for (int64_t j = width; j < kColumns; ++j) panel[panel_index<T, NV>(k, j)] = T{};
  }
  for (int64_t k = K; k < padded_k<T>(K); ++k) {
    for (int64_t j = 0; j < kColumns; ++j) panel[panel_index<T, NV>(k, j)] = T{};
  }
}

// to[r - first][k] = rows[k][r] for k < count and r in [first, last).
template <class T>
void transpose_rows(const T* const* rows, int64_t count, int64_t first, int64_t last, T* to,
                    int64_t to_stride) {
  constexpr int64_t kTile = kLanesOf<T>;
  for (int64_t r0 = first; r0 < last; r0 += kTile) {
    const int64_t r1 = std::min(r0 + kTile, last);
    int64_t k = 0;
    if constexpr (kKStep<T> == 1) {
      for (; r1 - r0 == kTile && k + kTile <= count; k += kTile) {
        const T* block[kTile];
        for (int64_t j = 0; j < kTile; ++j) block[j] = rows[k + j] + r0;
        transpose_block<T>(block, to + (r0 - first) * to_stride + k, to_stride);
      }
    }
    for (; k < count; ++k) {
      for (int64_t r = r0; r < r1; ++r) to[(r - first) * to_stride + k] = rows[k][r];
    }
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
