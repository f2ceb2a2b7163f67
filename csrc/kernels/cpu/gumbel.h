// SPDX-License-Identifier: MIT
// Gumbel noise on vectors: -log(-log(1 - v)) of a uniform v = (x + 1/2) 2^-32, x 32 random bits.
// Small v, where the noise is large, keeps its full relative accuracy in float, so the tail that
// decides draws is exact to rounding.
#pragma once

#include "common/philox.h"
#include "cpu/math.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// ---------------------------------------------------------------------------------------------------------------------
// Philox (common/philox.h) for several counters at once, each word in a 64-bit lane.

typedef uint64_t U64 __attribute__((vector_size(kVectorBytes)));
typedef uint32_t U32Half __attribute__((vector_size(kVectorBytes / 2)));
constexpr int kCountersAtOnce = kVectorBytes / 8;

// Products of the lanes' low halves.
SEQ2SEQ_EXT_INLINE U64 multiply_low_halves(U64 a, U64 b) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return (U64)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (U64)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// The random bits of kDrawBlock words from 32 * `block` on.
inline void draw_bits(const DrawKey& key, uint32_t block, uint32_t* bits) {
  constexpr uint64_t kLow = 0xffffffffu;
  for (int lane = 0; lane < kDrawLanes; lane += kCountersAtOnce) {
    const Philox first = key.counter(block * kDrawLanes + static_cast<uint32_t>(lane));
    U64 w[4];
    for (int i = 0; i < 4; ++i) w[i] = uint64_t{first.word[i]} - U64{};
    for (int i = 0; i < kCountersAtOnce; ++i) w[0][i] += static_cast<uint64_t>(i);
    uint64_t key0 = key.seed & kLow, key1 = key.seed >> 32;
    for (int i = 0; i < Philox::kRounds; ++i) {
      const U64 a = multiply_low_halves(w[0], uint64_t{Philox::kMultiply0} - U64{});
      const U64 b = multiply_low_halves(w[2], uint64_t{Philox::kMultiply1} - U64{});
      w[0] = (b >> 32) ^ w[1] ^ key0;
      w[1] = b & kLow;
      w[2] = (a >> 32) ^ w[3] ^ key1;
      w[3] = a & kLow;
      key0 = (key0 + Philox::kWeyl0) & kLow;
      key1 = (key1 + Philox::kWeyl1) & kLow;
    }
    for (int slot = 0; slot < 4; ++slot) {
      const U32Half halves = __builtin_convertvector(w[slot], U32Half);
      std::memcpy(bits + kDrawLanes * slot + lane, &halves, sizeof(halves));
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

// (x + 1/2) 2^-32, rounded once; in float at most 1 - 2^-24, so that it is below 1.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> uniform(const uint32_t* x) {
  using Int = typename Vec<T>::Int;
  // Small integers become floating-point by being the mantissa of 2^23 (2^52).
  const auto convert = [](Int i) {
    const Vec<T> base(sizeof(T) == 4 ? T(8388608) : T(4503599627370496));
    return from_bits<T>(i | bits(base)) - base;
  };
  const Vec<T> unit(T(1) / T(4294967296)), half(T(0.5) / T(4294967296));
  if constexpr (sizeof(T) == 4) {
    Int i;
    std::memcpy(&i, x, sizeof(i));
    const Vec<T> high = convert((i >> 16) & 0xffff), low = convert(i & 0xffff);
    return min(Vec<T>(T(1) - T(1) / 16777216),
               fma(high, Vec<T>(T(1) / 65536), fma(low, unit, half)));
  } else {
    U32Half i;
    std::memcpy(&i, x, sizeof(i));
    return fma(convert(__builtin_convertvector(i, Int)), unit, half);
  }
}

template <class T>
struct LogConstants;
template <>
struct LogConstants<float> {
  static constexpr int kTerms = 4;
  static constexpr int32_t kHalfRoot = 0x3f3504f3;  // bits of sqrt(1/2)
};
template <>
struct LogConstants<double> {
  static constexpr int kTerms = 10;
  static constexpr int64_t kHalfRoot = 0x3fe6a09e667f3bcd;
};

// n ln2 + log(1 + f), given f in [sqrt(1/2) - 1, sqrt(2) - 1]: with s = f / (2 + f), log(1 + f) =
// 2 s + 2 s^3 / 3 + ...; s^2 < 0.0295.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> log_of_parts(Vec<T> n, Vec<T> f) {
  using C = LogConstants<T>;
  const Vec<T> s = f / (Vec<T>(T(2)) + f), s2 = s * s;
  Vec<T> p(T(2) / T(2 * C::kTerms + 1));
#pragma GCC unroll 16
  for (int i = C::kTerms - 1; i >= 1; --i) p = fma(p, s2, Vec<T>(T(2) / T(2 * i + 1)));
  const Vec<T> log1p = fma(s * s2, p, s + s);
  return fma(n, Vec<T>(ExpConstants<T>::kLn2High), fma(n, Vec<T>(ExpConstants<T>::kLn2Low), log1p));
}

// x = 2^n (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); x positive and normal.
template <class T>
SEQ2SEQ_EXT_INLINE void split_log(Vec<T> x, Vec<T>& n, Vec<T>& f) {
  constexpr int kMantissa = ExpConstants<T>::kMantissaBits;
  const auto exponent = (bits(x) - LogConstants<T>::kHalfRoot) >> kMantissa;
  const Vec<T> round(ExpConstants<T>::kRound);
  n = from_bits<T>(bits(round) + exponent) - round;
  f = from_bits<T>(bits(x) - (exponent << kMantissa)) - Vec<T>(T(1));
}

// -log(1 - v) for v in (0, 1).
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> exponential_of_uniform(Vec<T> v) {
  Vec<T> n, f;
  split_log(Vec<T>(T(1)) - v, n, f);
  const Mask<T> small = v < Vec<T>(T(0.29));  // 1 - v has lost bits of v
  return -log_of_parts(select<T>(small, Vec<T>(T(0)), n), select<T>(small, -v, f));
}

template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> gumbel_of_uniform(Vec<T> v) {
  Vec<T> n, f;
  split_log(exponential_of_uniform(v), n, f);
  return -log_of_parts(n, f);
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
