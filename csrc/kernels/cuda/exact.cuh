// SPDX-License-Identifier: MIT
// exp, log and Gumbel noise in double, to the bits of cpu/decode/exact.h: IEEE operations in a
// fixed order, and no product contracted into a sum.
#pragma once

#include "common/philox.h"
#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr double kLn2 = 0x1.62e42fefa39efp-1;
constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kHalfRoot = 0x1.6a09e667f3bcdp-1;

// e**x, given x <= 0 or NaN; results under 2**-1022 are zero.
__device__ inline double exact_exp(double x) {
  if (x != x) return x;
  const double clamped = x < -745.0 ? -745.0 : x;
  const double k = rint(clamped / kLn2);
  const double r = (clamped - __dmul_rn(k, kLn2High)) - __dmul_rn(k, kLn2Low);
  double y = 1;
#pragma unroll 1
  for (int n = 14; n > 0; --n) y = __dmul_rn(y, r) / n + 1;
  if (k < -1022) return 0;
  const int64_t bits = (int64_t(k) + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof(power));
  return y * power;
}

// Natural logarithm, given x >= 0; of zero -inf.
__device__ inline double exact_log(double x) {
  if (x == 0) return -double(INFINITY);
  if (x == double(INFINITY)) return x;
  int exponent;
  double m = frexp(x, &exponent);
  if (m < kHalfRoot) {
    m *= 2;
    --exponent;
  }
  const double k = exponent, r = (m - 1) / (m + 1), square = __dmul_rn(r, r);
  double y = 0;
#pragma unroll 1
  for (int n = 12; n >= 0; --n) y = __dmul_rn(y, square) + 1.0 / (2 * n + 1);
  return __dmul_rn(k, kLn2High) + (__dmul_rn(2 * r, y) + __dmul_rn(k, kLn2Low));
}

// The Gumbel noise of a token.
__device__ inline double exact_gumbel(const DrawKey& key, int64_t token) {
  const int64_t lane = token % kDrawLanes;
  const int slot = int(token / kDrawLanes % 4);
  Philox numbers = key.counter(uint32_t(token / kDrawBlock * kDrawLanes + lane));
  numbers.run(key.seed);
  uint32_t word = numbers.word[0];
#pragma unroll
  for (int i = 1; i < 4; ++i) word = slot == i ? numbers.word[i] : word;
  return -exact_log(-exact_log(1 - (word + 0.5) * 0x1p-32));
}

}  // namespace seq2seq_ext::kernels::cuda
