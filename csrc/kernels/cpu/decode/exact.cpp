// SPDX-License-Identifier: MIT
#include "cpu/decode/exact.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "common/philox.h"

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ln 2 in two parts; the first has zeros at its end, so that k * kLn2High is exact.
constexpr double kLn2 = 0x1.62e42fefa39efp-1;
constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kHalfRoot = 0x1.6a09e667f3bcdp-1;
constexpr int kExpTerms = 14, kLogTerms = 12;
constexpr double kLowest = -745;  // exp of less is zero
constexpr int kMinExponent = -1022, kBias = 1023, kMantissaBits = 52;

}  // namespace

double exact_exp(double x) {
  if (std::isnan(x)) return x;
  const double clamped = x < kLowest ? kLowest : x;
  const double k = std::nearbyint(clamped / kLn2);
  const double r = (clamped - rounded(k * kLn2High)) - rounded(k * kLn2Low);
  double y = 1;
  for (int n = kExpTerms; n > 0; --n) y = y * r / n + 1;
  if (k < kMinExponent) return 0;
  const int64_t bits = (static_cast<int64_t>(k) + kBias) << kMantissaBits;
  double power;
  std::memcpy(&power, &bits, sizeof(power));
  return y * power;
}

double exact_log(double x) {
  if (x == 0) return -kInfinity;
  if (x == kInfinity) return x;
  int exponent;
  double m = std::frexp(x, &exponent);
  if (m < kHalfRoot) {
    m *= 2;
    --exponent;
  }
  // log m = 2 (r + r^3 / 3 + r^5 / 5 + ...), |r| < 0.172.
  const double k = exponent, r = (m - 1) / (m + 1), square = rounded(r * r);
  double y = 0;
  for (int n = kLogTerms; n >= 0; --n) y = rounded(y * square) + 1.0 / (2 * n + 1);
  return rounded(k * kLn2High) + (rounded(2 * r * y) + rounded(k * kLn2Low));
}

double exact_gumbel(uint64_t seed, uint64_t row, int64_t step, int64_t token) {
  const DrawKey key{seed, static_cast<uint32_t>(step), row};
  const int64_t lane = token % kDrawLanes, slot = token / kDrawLanes % 4;
  Philox numbers = key.counter(static_cast<uint32_t>(token / kDrawBlock * kDrawLanes + lane));
  numbers.run(key.seed);
  const double uniform = (numbers.word[slot] + 0.5) * 0x1p-32;
  return -exact_log(-exact_log(1 - uniform));
}

}  // namespace seq2seq_ext::kernels::cpu::decode
