// SPDX-License-Identifier: MIT
// Between gemm.cu, which cuts a product into blocks, and the kernels, a file a storage type.
#pragma once

#include "common/runtime.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// One operand's memory: lines of elements, `stride` elements apart. A line is a row of the operand,
// contiguous along k, or (`across`) one k of all its rows.
struct GemmOperand {
  const void* data;
  int64_t stride;
  bool across;
};

struct GemmLaunch {
  GemmParams params;  // c: of one part
  GemmOperand a, b;   // b's rows are the product's columns
  // The sum over k is cut into `parts` of `part_k`, a multiple of every tile's k. Part i goes to c
  // + i * part_stride.
  int64_t parts, part_k, part_stride;
};

// The tile of a block, in rows and columns of c.
constexpr int64_t gemm_tile(DType dtype) {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16 ? 128 : 64;
}

template <class T>
Status gemm_blocks(const GemmLaunch& launch, void* stream);

}  // namespace seq2seq_ext::kernels::cuda
