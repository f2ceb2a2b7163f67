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
// A number of the last place of this sum is 1: adding it rounds to a whole number, half to even.
constexpr double kRound = 0x1.8p52;

int64_t bits_of(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

double double_of(int64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// Without branches, so that loops of it can be vectorised.
inline double exp_of(double x) {
  const double clamped = x < kLowest ? kLowest : x;
  const double shifted = clamped / kLn2 + kRound, k = shifted - kRound;
  const double r = (clamped - rounded(k * kLn2High)) - rounded(k * kLn2Low);
  double y = 1;
  for (int n = kExpTerms; n > 0; --n) y = y * r / n + 1;
  const auto exponent = static_cast<uint64_t>(bits_of(shifted) - bits_of(kRound) + kBias);
  const double power = double_of(static_cast<int64_t>(exponent << kMantissaBits));
  return k < kMinExponent ? 0 : y * power;
}

// log(m 2**k), m from sqrt(1/2) to sqrt(2): log m = 2 (r + r^3 / 3 + r^5 / 5 + ...), |r| < 0.172.
inline double log_of(double m, double k) {
  const double r = (m - 1) / (m + 1), square = rounded(r * r);
  double y = 0;
  for (int n = kLogTerms; n >= 0; --n) y = rounded(y * square) + 1.0 / (2 * n + 1);
  return rounded(k * kLn2High) + (rounded(2 * r * y) + rounded(k * kLn2Low));
}

}  // namespace

double exact_exp(double x) { return std::isnan(x) ? x : exp_of(x); }

void exact_exp_each(double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = exp_of(x[i]);
}

double exact_log(double x) {
  if (x == 0) return -kInfinity;
  if (x == kInfinity) return x;
  int exponent;
  const double m = std::frexp(x, &exponent);
  const bool low = m < kHalfRoot;
  return log_of(low ? 2 * m : m, exponent - (low ? 1 : 0));
}

void exact_log_each(double* x, int64_t n) {
  constexpr int64_t kMantissa = (int64_t{1} << kMantissaBits) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t bits = bits_of(x[i]);
    const double m = double_of((bits & kMantissa) | int64_t{kBias - 1} << kMantissaBits);
    const int64_t exponent =
        static_cast<int64_t>(static_cast<uint64_t>(bits) >> kMantissaBits) - (kBias - 1);
    const double whole = double_of(exponent + bits_of(kRound)) - kRound;
    const bool low = m < kHalfRoot;
    x[i] = log_of(low ? 2 * m : m, low ? whole - 1 : whole);
  }
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
