// SPDX-License-Identifier: MIT
// Vectors of the ISA this file is compiled for (see target.h): Vec<float>, Vec<double>, and loads
// and stores that convert between a storage type (float, double, BFloat16) and its compute type.
// Written with GCC's vector extensions, with intrinsics only where those do not reach (fused
// multiply-add, masked memory, bf16 dot products).
#pragma once

#include "cpu/target.h"

#define SEQ2SEQ_EXT_INLINE inline __attribute__((always_inline))
#define SEQ2SEQ_EXT_LAMBDA_INLINE __attribute__((always_inline))

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

#if defined(SEQ2SEQ_EXT_ISA_AVX512)
constexpr int kVectorBytes = 64;
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorTypes;  // spelled out per type: GCC drops vector_size from a dependent type
template <>
struct VectorTypes<float> {
  typedef float Native __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorTypes<double> {
  typedef double Native __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Int __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using IntOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

template <class T>  // float or double
struct Vec {
  static constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));
  using Native = typename VectorTypes<T>::Native;
  using Int = typename VectorTypes<T>::Int;
  using Scalar = T;

  Native v;

  Vec() = default;
  SEQ2SEQ_EXT_INLINE Vec(Native native) : v(native) {}
  SEQ2SEQ_EXT_INLINE explicit Vec(T scalar) : v(scalar - Native{}) {}
};

// Vec(scalar) above is a broadcast: (scalar - 0), which keeps the sign of zero and is a single
// instruction.

template <class T>
using Mask = typename Vec<T>::Int;  // lanes all ones or all zeros

template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> operator+(Vec<T> a, Vec<T> b) {
  return {a.v + b.v};
}
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> operator-(Vec<T> a, Vec<T> b) {
  return {a.v - b.v};
}
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> operator*(Vec<T> a, Vec<T> b) {
  return {a.v * b.v};
}
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> operator/(Vec<T> a, Vec<T> b) {
  return {a.v / b.v};
}
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> operator-(Vec<T> a) {
  return {-a.v};
}
template <class T>
SEQ2SEQ_EXT_INLINE Mask<T> operator<(Vec<T> a, Vec<T> b) {
  return a.v < b.v;
}
template <class T>
SEQ2SEQ_EXT_INLINE Mask<T> operator>(Vec<T> a, Vec<T> b) {
  return a.v > b.v;
}

// mask ? a : b, lane by lane.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> select(typename Vec<T>::Int mask, Vec<T> a, Vec<T> b) {
  return {mask ? a.v : b.v};
}

// The larger; b where a is NaN or the comparison is false (so pass the value that may be NaN as b
// to keep it).
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return {a.v > b.v ? a.v : b.v};
}
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  return {a.v < b.v ? a.v : b.v};
}

// Bit i is that of lane i.
template <class T>
SEQ2SEQ_EXT_INLINE uint32_t lanes_set(typename Vec<T>::Int mask) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return sizeof(T) == 4 ? _mm512_movepi32_mask((__m512i)mask) : _mm512_movepi64_mask((__m512i)mask);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  return sizeof(T) == 4 ? _mm256_movemask_ps((__m256)mask) : _mm256_movemask_pd((__m256d)mask);
#else
  uint32_t set = 0;
  for (int i = 0; i < Vec<T>::kLanes; ++i) set |= uint32_t{mask[i] != 0} << i;
  return set;
#endif
}
template <class T>
constexpr uint32_t kAllLanes = (uint32_t{1} << Vec<T>::kLanes) - 1;

template <class T>
SEQ2SEQ_EXT_INLINE typename Vec<T>::Int bits(Vec<T> a) {
  return reinterpret_cast<typename Vec<T>::Int>(a.v);
}
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> from_bits(typename Vec<T>::Int i) {
  return {reinterpret_cast<typename Vec<T>::Native>(i)};
}

template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> abs(Vec<T> a) {
  return from_bits<T>(bits(a) & std::numeric_limits<IntOf<T>>::max());
}
// Magnitude of `a` with the sign of `s`.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> copysign(Vec<T> a, Vec<T> s) {
  constexpr IntOf<T> magnitude = std::numeric_limits<IntOf<T>>::max();
  return from_bits<T>((bits(a) & magnitude) | (bits(s) & ~magnitude));
}

// a * b + c; fused where the ISA has it.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  if constexpr (sizeof(T) == 4)
    return {(typename Vec<T>::Native)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v)};
  else
    return {(typename Vec<T>::Native)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v)};
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  if constexpr (sizeof(T) == 4)
    return {(typename Vec<T>::Native)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v)};
  else
    return {(typename Vec<T>::Native)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v)};
#else
  return {a.v * b.v + c.v};
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory. `load(p)` reads kLanes elements of storage type S; `load(p, n)` reads n <= kLanes and
// fills with zero, touching nothing past p[n - 1]; the same for store.

template <class S>
struct StorageTraits {
  using Acc = S;
};
template <>
struct StorageTraits<BFloat16> {
  using Acc = float;
};
template <class S>
using AccOf = typename StorageTraits<S>::Acc;

template <class S>
SEQ2SEQ_EXT_INLINE AccOf<S> to_acc(S value) {
  if constexpr (std::is_same_v<S, BFloat16>)
    return to_float(value);
  else
    return value;
}
template <class S>
SEQ2SEQ_EXT_INLINE S from_acc(AccOf<S> value) {
  if constexpr (std::is_same_v<S, BFloat16>)
    return to_bfloat16(value);
  else
    return value;
}

namespace detail {
constexpr int kHalfLanes = Vec<float>::kLanes;
typedef uint16_t U16 __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t U32 __attribute__((vector_size(kVectorBytes)));

SEQ2SEQ_EXT_INLINE Vec<float> widen(U16 halves) {
  const U32 wide = __builtin_convertvector(halves, U32) << 16;
  return {reinterpret_cast<Vec<float>::Native>(wide)};
}
SEQ2SEQ_EXT_INLINE U16 narrow(Vec<float> a) {
  const U32 u = reinterpret_cast<U32>(a.v);
  const U32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const U32 quiet_nan = (u >> 16) | 0x40u;
  const U32 is_nan = reinterpret_cast<U32>(a.v != a.v);
  return __builtin_convertvector((quiet_nan & is_nan) | (rounded & ~is_nan), U16);
}
}  // namespace detail

template <class S>
SEQ2SEQ_EXT_INLINE Vec<AccOf<S>> load(const S* p) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    detail::U16 halves;
    std::memcpy(&halves, p, sizeof(halves));
    return detail::widen(halves);
  } else {
    Vec<S> r;
    std::memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
}

template <class S>
SEQ2SEQ_EXT_INLINE void store(S* p, Vec<AccOf<S>> a) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    const detail::U16 halves = detail::narrow(a);
    std::memcpy(p, &halves, sizeof(halves));
  } else {
    std::memcpy(p, &a.v, sizeof(a.v));
  }
}

template <class S>
SEQ2SEQ_EXT_INLINE Vec<AccOf<S>> load(const S* p, int n) {
  if (n >= Vec<AccOf<S>>::kLanes) return load(p);
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  if constexpr (std::is_same_v<S, float>) {
    return {(Vec<float>::Native)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p)};
  } else if constexpr (std::is_same_v<S, double>) {
    return {(Vec<double>::Native)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1u), p)};
  } else {
    return detail::widen((detail::U16)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p));
  }
#else
  S buffer[Vec<AccOf<S>>::kLanes] = {};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return load(buffer);
#endif
}

template <class S>
SEQ2SEQ_EXT_INLINE void store(S* p, Vec<AccOf<S>> a, int n) {
  if (n >= Vec<AccOf<S>>::kLanes) return store(p, a);
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  if constexpr (std::is_same_v<S, float>) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)a.v);
  } else if constexpr (std::is_same_v<S, double>) {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1u), (__m512d)a.v);
  } else {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1u), (__m256i)detail::narrow(a));
  }
#else
  S buffer[Vec<AccOf<S>>::kLanes];
  store(buffer, a);
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// Reductions over lanes, in a fixed order (halving), so that they are the same wherever they are
// used.

template <class T>
SEQ2SEQ_EXT_INLINE T reduce_add(Vec<T> a) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  if constexpr (sizeof(T) == 4)
    return _mm512_reduce_add_ps((__m512)a.v);
  else
    return _mm512_reduce_add_pd((__m512d)a.v);
#else
  T lane[Vec<T>::kLanes];
  std::memcpy(lane, &a.v, sizeof(lane));
  for (int width = Vec<T>::kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
#endif
}

// If one of them is NaN: NaN or any of the others. (Sums of exponentials tell of it.)
template <class T>
SEQ2SEQ_EXT_INLINE T reduce_max(Vec<T> a) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  if constexpr (sizeof(T) == 4)
    return _mm512_reduce_max_ps((__m512)a.v);
  else
    return _mm512_reduce_max_pd((__m512d)a.v);
#else
  T lane[Vec<T>::kLanes];
  std::memcpy(lane, &a.v, sizeof(lane));
  T best = lane[0];
  for (int i = 1; i < Vec<T>::kLanes; ++i) best = lane[i] > best ? lane[i] : best;
  return best;
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// Products of bf16 pairs: lane i of acc += a[2i] * b[2i] + a[2i + 1] * b[2i + 1], where a and b
// hold kLanes pairs.

struct PairVec {
  typedef uint32_t Native __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = Vec<float>::kLanes;
  Native v;
};

SEQ2SEQ_EXT_INLINE PairVec load_pairs(const BFloat16* p) {  // 2 * kLanes elements
  PairVec r;
  std::memcpy(&r.v, p, sizeof(r.v));
  return r;
}
SEQ2SEQ_EXT_INLINE PairVec load_pairs(const BFloat16* p,
                                      int n) {  // n <= 2 * kLanes elements, rest zero
  if (n >= 2 * PairVec::kLanes) return load_pairs(p);
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return {(PairVec::Native)_mm512_maskz_loadu_epi16((__mmask32)((uint64_t{1} << n) - 1u), p)};
#else
  BFloat16 buffer[2 * PairVec::kLanes] = {};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return load_pairs(buffer);
#endif
}
SEQ2SEQ_EXT_INLINE PairVec broadcast_pair(uint32_t pair) { return {pair - PairVec::Native{}}; }

SEQ2SEQ_EXT_INLINE Vec<float> dot_pairs(Vec<float> acc, PairVec a, PairVec b) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return {(Vec<float>::Native)_mm512_dpbf16_ps((__m512)acc.v, (__m512bh)a.v, (__m512bh)b.v)};
#else
  const auto even = [](PairVec x) {
    return Vec<float>(reinterpret_cast<Vec<float>::Native>(x.v << 16));
  };
  const auto odd = [](PairVec x) {
    return Vec<float>(reinterpret_cast<Vec<float>::Native>(x.v & 0xffff0000u));
  };
  return fma(odd(a), odd(b), fma(even(a), even(b), acc));
#endif
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
