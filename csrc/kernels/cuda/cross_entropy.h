// SPDX-License-Identifier: MIT
// The two kernels of linear + cross-entropy that compute logits, tile by tile; cross_entropy.cu
// queues them, cross_entropy_<dtype>.cu hold them. "State" arrays have the sum type.
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// Words and rows of one block's logits.
struct LogitTile {
  int words, rows;
};
constexpr LogitTile logit_tile(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return {64, 32};
    default:
      return {128, 64};  // with 128 rows, 16-bit types spill on sm_90
  }
}

// A block goes through the tiles of a slice of the vocabulary, so that there is little to merge.
constexpr int kSliceTiles = 4;

constexpr int64_t cross_entropy_slices(DType dtype, int64_t V) {
  const int64_t words = int64_t{kSliceTiles} * logit_tile(dtype).words;
  return (V + words - 1) / words;
}

// Of each row and slice: the largest logit, the sum of exp(logit - largest), and with label
// smoothing the sum of class weight * logit; of each row the target's logit. What belongs to rows
// that are ignored, or to a target out of range, is not written.
struct LogitSums {
  CrossEntropyInputs in;
  int64_t slices;
  void* largest;       // (N, slices) state
  void* sum;           // (N, slices) state
  void* weighted;      // (N, slices) state; null: no smoothing
  void* target_logit;  // (N) state
};

// The loss's gradient by the logits of words [v, v + words).
struct LogitGradients {
  CrossEntropyInputs in;
  const void *lse, *sums, *d_loss;  // as in CrossEntropyBackwardParams
  int64_t v, words;
  void* dz;           // (words, N) dtype, rows dz_stride apart
  int64_t dz_stride;  // a multiple of 16 bytes
  void* bias_parts;   // (row tiles, words) state: each tile's sum over its rows; null: not wanted
};

template <class T>
Status logit_sums(const LogitSums& args, const Runtime& runtime);
template <class T>
Status logit_gradients(const LogitGradients& args, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
