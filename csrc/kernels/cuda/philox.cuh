// SPDX-License-Identifier: MIT
// Gumbel noise of 32 random bits (cpu/gumbel.h is the same on vectors).
#pragma once

#include "common/philox.h"
#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

// -log(-log(1 - v)) of the uniform v = (x + 1/2) 2^-32, which in float is kept below 1. Small v,
// where the noise is large, has its full relative accuracy.
__device__ inline float gumbel(uint32_t x, float) {
  const float v = fminf(fmaf(float(x), 0x1p-32f, 0x1p-33f), 1.f - 0x1p-24f);
  return -logf(-log1pf(-v));
}
__device__ inline double gumbel(uint32_t x, double) {
  return -log(-log1p(-fma(double(x), 0x1p-32, 0x1p-33)));
}

}  // namespace seq2seq_ext::kernels::cuda
