// SPDX-License-Identifier: MIT
// Device functions that CUDA's headers do not give to the host. One that is missing here is a
// compile error: add it.
#pragma once

#include <math.h>  // the overloads for float in the global namespace, as CUDA has them

#include <cmath>
#include <cstring>

#include "host_execution/builtins.h"

// ---- Loads and stores with a cache policy
// ---------------------------------------------------------
#define HX_LOAD(function)            \
  template <class T>                 \
  HX_INLINE T function(const T* p) { \
    return *p;                       \
  }
HX_LOAD(__ldg)
HX_LOAD(__ldca)
HX_LOAD(__ldcg)
HX_LOAD(__ldcs)
HX_LOAD(__ldlu)
HX_LOAD(__ldcv)
#undef HX_LOAD
#define HX_STORE(function)                 \
  template <class T>                       \
  HX_INLINE void function(T* p, T value) { \
    *p = value;                            \
  }
HX_STORE(__stwb)
HX_STORE(__stcg)
HX_STORE(__stcs)
HX_STORE(__stwt)
#undef HX_STORE

// ---- Bits ---------------------------------------------------------------------------------------
namespace hx {
template <class To, class From>
HX_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace hx
inline int __float_as_int(float x) { return hx::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return hx::bits<unsigned>(x); }
inline float __int_as_float(int x) { return hx::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return hx::bits<float>(x); }
inline long long __double_as_longlong(double x) { return hx::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return hx::bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1) << (31 - i);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
// The upper word of hi:lo shifted left, the lower one of hi:lo shifted right.
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
  return unsigned(((uint64_t(hi) << 32 | lo) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
  return unsigned((uint64_t(hi) << 32 | lo) >> (shift & 31));
}
// Byte i of the result is byte (selector >> 4 i) & 7 of b:a.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned from = selector >> 4 * i;
    unsigned byte = unsigned(bytes >> 8 * (from & 7)) & 0xff;
    if (from & 8) byte = byte & 0x80 ? 0xff : 0;  // the byte's sign
    result |= byte << 8 * i;
  }
  return result;
}

// ---- Arithmetic ---------------------------------------------------------------------------------
// The approximate ones are more exact here than on a GPU.
inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return float(1 / std::sqrt(double(x))); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.f) : 0.f; }  // NaN: 0
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
// Not to be contracted into a fused multiply-add.
HX_UNWATCHED inline float __fadd_rn(float a, float b) { return a + b; }
HX_UNWATCHED inline float __fsub_rn(float a, float b) { return a - b; }
HX_UNWATCHED inline float __fmul_rn(float a, float b) { return a * b; }
HX_UNWATCHED inline double __dadd_rn(double a, double b) { return a + b; }
HX_UNWATCHED inline double __dmul_rn(double a, double b) { return a * b; }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }

// Products of 16-bit values are exact in double, and so is what their sum is rounded from but for
// cases that differ in the last bit.
inline __half __hfma(__half a, __half b, __half c) {
  return __float2half_rn(float(double(float(a)) * float(b) + float(c)));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __float2bfloat16_rn(float(double(float(a)) * float(b) + float(c)));
}

// CUDA's: arithmetic types of one signedness, the wider wins; NaN gives way to a number.
#define HX_MIN_MAX(T, smaller, larger)       \
  inline T min(T a, T b) { return smaller; } \
  inline T max(T a, T b) { return larger; }
HX_MIN_MAX(int, b < a ? b : a, a < b ? b : a)
HX_MIN_MAX(unsigned, b < a ? b : a, a < b ? b : a)
HX_MIN_MAX(long, b < a ? b : a, a < b ? b : a)
HX_MIN_MAX(unsigned long, b < a ? b : a, a < b ? b : a)
HX_MIN_MAX(long long, b < a ? b : a, a < b ? b : a)
HX_MIN_MAX(unsigned long long, b < a ? b : a, a < b ? b : a)
HX_MIN_MAX(float, fminf(a, b), fmaxf(a, b))
HX_MIN_MAX(double, fmin(a, b), fmax(a, b))
#undef HX_MIN_MAX
