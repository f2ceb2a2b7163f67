// SPDX-License-Identifier: MIT
// Products of int8 rows with panels of int8 weights (common/decode.h: DecodeScreen).
#pragma once

#include "cpu/vocab.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

constexpr int64_t kPanelWords = 16;  // a panel of weights: (K / 4, 16 words, 4 k) bytes, each + 128
constexpr int kPanels = 3;           // together
static_assert(kBlock % (kPanels * kPanelWords) == 0, "blocks are whole tiles");

// sums[row][word] = sum over k of (q[word][k] + 128) p[row][k], for kPanels panels.
template <int kRows>
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
      _mm512_storeu_si512(sums + b * sums_stride + j * kPanelWords, acc[b][j]);
    }
  }
#else
  for (int b = 0; b < kRows; ++b) {
    for (int j = 0; j < kPanels; ++j) {
      int32_t acc[kPanelWords] = {};
      for (int64_t k = 0; k < quads; ++k) {
        const uint8_t* w = panels + j * panel_bytes + k * 64;
        const int8_t* x = p + b * p_stride + 4 * k;
        for (int v = 0; v < kPanelWords; ++v) {
          acc[v] +=
              w[4 * v] * x[0] + w[4 * v + 1] * x[1] + w[4 * v + 2] * x[2] + w[4 * v + 3] * x[3];
        }
      }
      std::memcpy(sums + b * sums_stride + j * kPanelWords, acc, sizeof(acc));
    }
  }
#endif
}

// The tile for a number of rows known at run time only; returns how many of them it took.
template <int kRows = 8>
int64_t screen_rows(int64_t rows, const uint8_t* panels, int64_t panel_bytes, int64_t quads,
                    const int8_t* p, int64_t p_stride, int32_t* sums, int64_t sums_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return screen_rows<kRows - 1>(rows, panels, panel_bytes, quads, p, p_stride, sums,
                                    sums_stride);
    }
  }
  screen_tile<kRows>(panels, panel_bytes, quads, p, p_stride, sums, sums_stride);
  return kRows;
}

}  // namespace
}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
