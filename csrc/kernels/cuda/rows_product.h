// SPDX-License-Identifier: MIT
// A product for few rows, y = x w^T + bias, reading w once. Row b's result depends on row b alone,
// bit for bit.
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

struct RowsProductParams {
  DType dtype;
  int64_t B, N, K;
  const void* x;  // (B, K) dtype, rows x_stride_b apart
  int64_t x_stride_b;
  const void* w;               // (N, K) dtype, contiguous
  const void* bias = nullptr;  // (N) dtype
  void* y;                     // (B, N) dtype, rows y_stride_b apart; float32 if `wide`
  int64_t y_stride_b;
  bool wide = false;  // for bfloat16 and float16 only
};

Status rows_product(const RowsProductParams& params, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
