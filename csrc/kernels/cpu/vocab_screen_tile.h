// SPDX-License-Identifier: MIT
// Features in int8, and their products with panels of int8 weights (common/decode.h: DecodeScreen).
#pragma once

#include "cpu/vocab.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

// Words of a panel of weights: (K / 4, 16 words, 4 k) bytes, each + 128.
constexpr int64_t kScreenPanel = 16;
constexpr int kBlockPanels = kBlock / kScreenPanel;
static_assert(kBlock % kScreenPanel == 0 && kBlockPanels % 2 == 0, "halves are whole panels");

// x = scale * p + d.
struct ScreenedRow {
  float scale, norm, residual;  // |x| and |d|, at least
  int32_t sum;                  // of p
  bool finite;
};

// Where no square overflows, and those that underflow do not count.
template <class S>
ScreenedRow quantised_usual_row(const S* x, int64_t H, float most, int8_t* p) {
  using V = Vec<float>;
  constexpr int kLanes = V::kLanes;
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  const V scale(most / 127), inverse(127 / most), limit(127);
  const V round(12582912);  // 1.5 * 2^23: what is added to it loses its fraction
  V norm(0), residual(0);
  Mask<float> sum{};
  for (int64_t k = 0; k < H; k += kLanes) {
    const int n = static_cast<int>(std::min<int64_t>(kLanes, H - k));
    const V value = load(x + k, n);
    const V whole = (min(limit, max(V(0) - limit, value * inverse)) + round) - round;
    const V d = value - scale * whole;
    norm = fma(value, value, norm);
    residual = fma(d, d, residual);
    const Mask<float> integers = __builtin_convertvector(whole.v, Mask<float>);
    sum += integers;
    const Bytes bytes = __builtin_convertvector(integers, Bytes);
    if (n == kLanes) {
      std::memcpy(p + k, &bytes, kLanes);
    } else {
      std::memcpy(p + k, &bytes, n);
    }
  }
  ScreenedRow row{most / 127, 0, 0, 0, true};
  for (int i = 0; i < kLanes; ++i) row.sum += sum[i];
  // More than rounding takes away: of sums of H squares, and of each d.
  const float terms = static_cast<float>(H), unit = 0x1p-23f;
  row.norm = std::sqrt(reduce_add(norm)) * (1 + (terms + 16) * unit);
  row.residual =
      std::sqrt(reduce_add(residual)) * (1 + (terms + 16) * unit) + std::sqrt(terms) * most * unit;
  return row;
}

// p: as many as H rounded up to whole fours, filled up with zeros.
template <class S>
ScreenedRow quantised_row(const S* x, int64_t H, int8_t* p) {
  constexpr float kLeast = 1e-30f;
  constexpr int kLanes = Vec<float>::kLanes;
  std::fill(p + H, p + (H + 3) / 4 * 4, int8_t(0));
  Vec<float> largest(0), zero(0);
  for (int64_t k = 0; k < H; k += kLanes) {
    const Vec<float> value = load(x + k, static_cast<int>(std::min<int64_t>(kLanes, H - k)));
    largest = max(largest, abs(value));
    zero = zero + value * Vec<float>(0);  // NaN where a value is not finite
  }
  const float most = reduce_max(largest);
  const bool finite = reduce_add(zero) == 0;
  if (finite && most > 1e-12f && most < 1e12f) return quantised_usual_row(x, H, most, p);
  ScreenedRow row{most / 127, 0, 0, 0, finite};
  // The inverse of less may be infinite; p = 0 will do, all of x is then residual.
  const float inverse = most > kLeast ? 127 / most : 0;
  double norm = 0, residual = 0;
  for (int64_t k = 0; finite && k < H; ++k) {
    const float value = to_acc(x[k]);
    p[k] = static_cast<int8_t>(std::nearbyint(std::clamp(value * inverse, -127.0f, 127.0f)));
    const double d = double(value) - double(row.scale) * p[k];
    norm += double(value) * value;
    residual += d * d;
    row.sum += p[k];
  }
  // A little more than rounding takes away.
  row.norm = static_cast<float>(std::sqrt(norm) * (1 + 1e-6));
  row.residual = static_cast<float>(std::sqrt(residual) * (1 + 1e-6));
  return row;
}

// sums[row][word] = sum over k of (q[word][k] + 128) p[row][k], for kPanels panels;
// with kFetch, a cache line of `ahead` a step of k is fetched into the second-level cache.
template <int kRows, int kPanels, bool kFetch = false>
void screen_tile(const uint8_t* panels, int64_t panel_bytes, int64_t quads, const int8_t* p,
                 int64_t p_stride, int32_t* sums, int64_t sums_stride,
                 [[maybe_unused]] const uint8_t* ahead = nullptr) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  __m512i acc[kRows][kPanels];
#pragma GCC unroll 8
  for (int b = 0; b < kRows; ++b) {
#pragma GCC unroll 8
    for (int j = 0; j < kPanels; ++j) acc[b][j] = _mm512_setzero_si512();
  }
  for (int64_t k = 0; k < quads; ++k) {
    __m512i w[kPanels];
#pragma GCC unroll 8
    for (int j = 0; j < kPanels; ++j) w[j] = _mm512_loadu_si512(panels + j * panel_bytes + k * 64);
    if constexpr (kFetch) __builtin_prefetch(ahead + k * 64, 0, 2);
#pragma GCC unroll 8
    for (int b = 0; b < kRows; ++b) {
      int32_t four;
      std::memcpy(&four, p + b * p_stride + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 8
      for (int j = 0; j < kPanels; ++j) acc[b][j] = _mm512_dpbusd_epi32(acc[b][j], w[j], x);
    }
  }
#pragma GCC unroll 8
  for (int b = 0; b < kRows; ++b) {
#pragma GCC unroll 8
    for (int j = 0; j < kPanels; ++j) {
      _mm512_storeu_si512(sums + b * sums_stride + j * kScreenPanel, acc[b][j]);
    }
  }
#else
  for (int b = 0; b < kRows; ++b) {
    for (int j = 0; j < kPanels; ++j) {
      int32_t acc[kScreenPanel] = {};
      for (int64_t k = 0; k < quads; ++k) {
        const uint8_t* w = panels + j * panel_bytes + k * 64;
        const int8_t* x = p + b * p_stride + 4 * k;
        for (int v = 0; v < kScreenPanel; ++v) {
          acc[v] +=
              w[4 * v] * x[0] + w[4 * v + 1] * x[1] + w[4 * v + 2] * x[2] + w[4 * v + 3] * x[3];
        }
      }
      std::memcpy(sums + b * sums_stride + j * kScreenPanel, acc, sizeof(acc));
    }
  }
#endif
}

// The same for a block and as many rows as a tile has, at most `rows`; returns how many. Where rows
// are few the block's panels go all together, for enough sums at a time, and the processor alone
// fetches what comes; the first groups of many fetch the next block, each a part of it.
template <int kRows = 8>
int64_t screen_rows(int64_t rows, const uint8_t* panels, int64_t quads, const int8_t* p,
                    int64_t p_stride, GroupOf group, int32_t* sums, int64_t sums_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return screen_rows<kRows - 1>(rows, panels, quads, p, p_stride, group, sums, sums_stride);
    }
  }
  constexpr int kTogether = kRows <= 4 ? kBlockPanels : kBlockPanels / 2;
  const int64_t panel_bytes = quads * 4 * kScreenPanel;
  const bool fetches = kRows == 8 && group.count >= kTogether && group.index < kTogether;
  for (int j = 0; j < kBlockPanels; j += kTogether) {
    const uint8_t* const here = panels + j * panel_bytes;
    int32_t* const to = sums + j * kScreenPanel;
    if (fetches) {
      const int64_t part = j + group.index;  // of the next block's panels
      screen_tile<kRows, kTogether, kRows == 8>(here, panel_bytes, quads, p, p_stride, to,
                                                sums_stride,
                                                panels + (kBlockPanels + part) * panel_bytes);
    } else {
      screen_tile<kRows, kTogether>(here, panel_bytes, quads, p, p_stride, to, sums_stride);
    }
  }
  return kRows;
}

}  // namespace
}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
