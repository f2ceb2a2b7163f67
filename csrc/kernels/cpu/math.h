// SPDX-License-Identifier: MIT
// exp, expm1, sigmoid and tanh on vectors, branch-free, accurate over the whole range
// (tests/kernels sweeps them):
//   exp      <= 2 ulp where the result is normal; 0 below, +inf above; NaN stays NaN
//   sigmoid  <= 3 ulp where exp(-x) is finite
//   tanh     <= 3 ulp; odd, exact signs, +-1 at +-inf
//
// x = n ln2 + r with |r| <= ln2 / 2, so e^x = 2^n (1 + q), q = e^r - 1 = r + r^2 P(r). P
// interpolates (e^r - 1 - r) / r^2 at Chebyshev nodes: relative error of q 5e-10 (float, degree 5)
// and 6e-19 (double, degree 10). Keeping q apart from 1 gives expm1, and with it tanh, its full
// relative accuracy around zero.
#pragma once

#include "cpu/simd.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  static constexpr int kMantissaBits = 23;
  static constexpr int32_t kBias = 127;
  static constexpr float kMax = 88.722839f,
                         kMin = -87.336544f;  // exp is finite and normal in between
  static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.4286068203094172e-6f;
  static constexpr float kTanhSaturates = 10.0f;
  static constexpr float kPoly[] = {0.50000000134738952932f,   0.16666666681632211591f,
                                    0.041666464844507487889f,  0.0083333109165102384316f,
                                    0.0013933658961533570696f, 0.00019891000780597316739f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kBias = 1023;
  static constexpr double kMax = 709.78271289338397, kMin = -708.39641853226408;
  static constexpr double kLn2High = 0.6931471803691238164901733,
                          kLn2Low = 1.908214929270587816144266e-10;
  static constexpr double kTanhSaturates = 20.0;
  static constexpr double kPoly[] = {0.5,
                                     0.16666666666666670995,
                                     0.041666666666666669758,
                                     0.0083333333333261293636,
                                     0.001388888888888374419,
                                     0.00019841269874840768638,
                                     0.000024801587325562125808,
                                     2.7557255374658742054e-6,
                                     2.7557273624866476327e-7,
                                     2.510522763655175914e-8,
                                     2.0914694560351591585e-9};
};

// e^x = scale * (1 + q), for x from kMin to (128 - 1/2) ln2 (double: 1024 - 1/2), above which 2^n
// overflows; half of that where `halved` is set (all ones, that is -1).
template <class T>
struct SplitExp {
  Vec<T> scale;  // 2^n
  Vec<T> q;
};

template <class T>
SEQ2SEQ_EXT_INLINE SplitExp<T> split_exp(Vec<T> x, Mask<T> halved = Mask<T>{}) {
  using C = ExpConstants<T>;
  const Vec<T> shifted = fma(x, Vec<T>(T(1.4426950408889634074)), Vec<T>(C::kRound));
  const Vec<T> n = shifted - Vec<T>(C::kRound);
  Vec<T> r = fma(n, Vec<T>(-C::kLn2High), x);
  r = fma(n, Vec<T>(-C::kLn2Low), r);
  constexpr int degree = sizeof(C::kPoly) / sizeof(T) - 1;
  Vec<T> p(C::kPoly[degree]);
#pragma GCC unroll 16
  for (int i = degree - 1; i >= 0; --i) p = fma(p, r, Vec<T>(C::kPoly[i]));
  const auto exponent = (bits(shifted) + (C::kBias + halved)) << C::kMantissaBits;
  return {from_bits<T>(exponent), fma(r * r, p, r)};
}

template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  // At the very top n rounds up to 2^128, which has no representation: compute half the result.
  const Vec<T> clamped = max(Vec<T>(C::kMin), min(Vec<T>(C::kMax), x));
  const Mask<T> top = clamped > Vec<T>(C::kMax - T(1));
  const SplitExp<T> e = split_exp(clamped, top);
  Vec<T> result = fma(e.scale, e.q, e.scale);
  result = select<T>(top, result + result, result);
  result = select<T>(x < Vec<T>(C::kMin), Vec<T>(T(0)), result);
  return select<T>(x > Vec<T>(C::kMax), Vec<T>(std::numeric_limits<T>::infinity()), result);
}

template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = ExpConstants<T>;
  // exp(-x) over the range whose scale is representable; beyond it the result is within an ulp of 0
  // or 1 anyway.
  const Vec<T> limited = max(Vec<T>(C::kMin), min(Vec<T>(-C::kMin), x));
  const SplitExp<T> e = split_exp(-limited);
  return Vec<T>(T(1)) / (Vec<T>(T(1)) + fma(e.scale, e.q, e.scale));
}

template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> tanh(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> magnitude = min(Vec<T>(C::kTanhSaturates), abs(x));
  const SplitExp<T> e = split_exp(magnitude + magnitude);
  const Vec<T> expm1 = fma(e.scale, e.q, e.scale - Vec<T>(T(1)));
  return copysign(expm1 / (expm1 + Vec<T>(T(2))), x);
}

// What a cell trait (cells/*.h) computes with.
template <class T>
struct Math {
  using V = Vec<T>;
  static SEQ2SEQ_EXT_INLINE V constant(double value) { return V(static_cast<T>(value)); }
  static SEQ2SEQ_EXT_INLINE V sigmoid(V x) { return SEQ2SEQ_EXT_ISA::sigmoid(x); }
  static SEQ2SEQ_EXT_INLINE V tanh(V x) { return SEQ2SEQ_EXT_ISA::tanh(x); }
  // x where condition > 0, else 0
  static SEQ2SEQ_EXT_INLINE V where_positive(V condition, V x) {
    return select<T>(condition > V(T(0)), x, V(T(0)));
  }
  // relu that hands a NaN on
  static SEQ2SEQ_EXT_INLINE V relu(V x) { return max(V(T(0)), x); }
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
