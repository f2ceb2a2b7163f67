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

// p: as many as H rounded up to whole fours, filled up with zeros.
template <class S>
ScreenedRow quantised_row(const S* x, int64_t H, int8_t* p) {
  constexpr float kLeast = 1e-30f;
  float most = 0;
  bool finite = true;
  for (int64_t k = 0; k < H; ++k) {
    const float value = to_acc(x[k]);
    finite = finite && std::abs(value) <= std::numeric_limits<float>::max();
    most = std::max(most, std::abs(value));
  }
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
  std::fill(p + H, p + (H + 3) / 4 * 4, int8_t(0));
  // A little more than rounding takes away.
  row.norm = static_cast<float>(std::sqrt(norm) * (1 + 1e-6));
  row.residual = static_cast<float>(std::sqrt(residual) * (1 + 1e-6));
  return row;
}

// sums[row][word] = sum over k of (q[word][k] + 128) p[row][k], for kPanels panels.
template <int kRows, int kPanels>
void screen_tile(const uint8_t* panels, int64_t panel_bytes, int64_t quads, const int8_t* p,
                 int64_t p_stride, int32_t* sums, int64_t sums_stride) {
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
// are few the block's panels go all together, for enough sums at a time.
template <int kRows = 8>
int64_t screen_rows(int64_t rows, const uint8_t* panels, int64_t quads, const int8_t* p,
                    int64_t p_stride, int32_t* sums, int64_t sums_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return screen_rows<kRows - 1>(rows, panels, quads, p, p_stride, sums, sums_stride);
    }
  }
  constexpr int kTogether = kRows <= 4 ? kBlockPanels : kBlockPanels / 2;
  const int64_t panel_bytes = quads * 4 * kScreenPanel;
  for (int j = 0; j < kBlockPanels; j += kTogether) {
    screen_tile<kRows, kTogether>(panels + j * panel_bytes, panel_bytes, quads, p, p_stride,
                                  sums + j * kScreenPanel, sums_stride);
  }
  return kRows;
}

}  // namespace
}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
