// SPDX-License-Identifier: MIT
// Sums over the lanes of several vectors at once, by shuffles that transpose while they add.
#pragma once

#include "cpu/simd.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

namespace detail {

// Values of type T in 16 bytes, the piece within which a processor shuffles cheaply.
template <class T>
constexpr int kPiece = 16 / static_cast<int>(sizeof(T));

// The "maskz" forms below mask nothing: GCC 12 warns about its own header when the plain ones are
// used.

// Within each 16 bytes: the lower (upper) halves of a and b, their elements alternating.
SEQ2SEQ_EXT_INLINE Vec<float>::Native unpack_low(Vec<float>::Native a, Vec<float>::Native b) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return (Vec<float>::Native)_mm512_maskz_unpacklo_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  return (Vec<float>::Native)_mm256_unpacklo_ps((__m256)a, (__m256)b);
#else
  return Vec<float>::Native{a[0], b[0], a[1], b[1]};
#endif
}
SEQ2SEQ_EXT_INLINE Vec<float>::Native unpack_high(Vec<float>::Native a, Vec<float>::Native b) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return (Vec<float>::Native)_mm512_maskz_unpackhi_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  return (Vec<float>::Native)_mm256_unpackhi_ps((__m256)a, (__m256)b);
#else
  return Vec<float>::Native{a[2], b[2], a[3], b[3]};
#endif
}
SEQ2SEQ_EXT_INLINE Vec<double>::Native unpack_low(Vec<double>::Native a, Vec<double>::Native b) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return (Vec<double>::Native)_mm512_maskz_unpacklo_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  return (Vec<double>::Native)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
#else
  return Vec<double>::Native{a[0], b[0]};
#endif
}
SEQ2SEQ_EXT_INLINE Vec<double>::Native unpack_high(Vec<double>::Native a, Vec<double>::Native b) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  return (Vec<double>::Native)_mm512_maskz_unpackhi_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  return (Vec<double>::Native)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
#else
  return Vec<double>::Native{a[1], b[1]};
#endif
}

// Transposes a square of pieces: r[i] piece j <-> r[j] piece i.
template <class N>
SEQ2SEQ_EXT_INLINE void transpose_pieces(N& r0, [[maybe_unused]] N& r1, [[maybe_unused]] N& r2,
                                         [[maybe_unused]] N& r3) {
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  const __m512 low01 = _mm512_maskz_shuffle_f32x4(0xffff, (__m512)r0, (__m512)r1, 0x44);
  const __m512 high01 = _mm512_maskz_shuffle_f32x4(0xffff, (__m512)r0, (__m512)r1, 0xee);
  const __m512 low23 = _mm512_maskz_shuffle_f32x4(0xffff, (__m512)r2, (__m512)r3, 0x44);
  const __m512 high23 = _mm512_maskz_shuffle_f32x4(0xffff, (__m512)r2, (__m512)r3, 0xee);
  r0 = (N)_mm512_maskz_shuffle_f32x4(0xffff, low01, low23, 0x88);
  r1 = (N)_mm512_maskz_shuffle_f32x4(0xffff, low01, low23, 0xdd);
  r2 = (N)_mm512_maskz_shuffle_f32x4(0xffff, high01, high23, 0x88);
  r3 = (N)_mm512_maskz_shuffle_f32x4(0xffff, high01, high23, 0xdd);
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
  const __m256 low = _mm256_permute2f128_ps((__m256)r0, (__m256)r1, 0x20);
  r1 = (N)_mm256_permute2f128_ps((__m256)r0, (__m256)r1, 0x31);
  r0 = (N)low;
#endif
}

}  // namespace detail

// Every sum is built by the same tree, wherever its vector stands: first within pieces of 16 bytes,
// then over the pieces.

// Lane p * n + i of the result: the sum of piece p of a[i]; n = kPiece vectors.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> reduce_pieces(const Vec<T>* a) {
  using detail::unpack_high;
  using detail::unpack_low;
  const auto fold = [](auto x, auto y) { return unpack_low(x, y) + unpack_high(x, y); };
  if constexpr (detail::kPiece<T> == 2) {
    return {fold(a[0].v, a[1].v)};
  } else {
    using D = Vec<double>::Native;  // two floats move together
    const auto x = fold(a[0].v, a[1].v), y = fold(a[2].v, a[3].v);
    const auto low = (typename Vec<T>::Native)unpack_low((D)x, (D)y);
    const auto high = (typename Vec<T>::Native)unpack_high((D)x, (D)y);
    return {low + high};
  }
}

// out[i] = the sum of a[i], for kPiece vectors.
template <class T>
SEQ2SEQ_EXT_INLINE void reduce_row(const Vec<T>* a, T* out) {
  const Vec<T> sums = reduce_pieces(a);
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
  const __m512 s = (__m512)sums.v;
  const auto add = [](__m128 x, __m128 y) {
    if constexpr (sizeof(T) == 4)
      return _mm_add_ps(x, y);
    else
      return _mm_castpd_ps(_mm_add_pd(_mm_castps_pd(x), _mm_castps_pd(y)));
  };
  _mm_storeu_ps(
      reinterpret_cast<float*>(out),
      add(add(_mm512_maskz_extractf32x4_ps(0xf, s, 0), _mm512_maskz_extractf32x4_ps(0xf, s, 1)),
          add(_mm512_maskz_extractf32x4_ps(0xf, s, 2), _mm512_maskz_extractf32x4_ps(0xf, s, 3))));
#else
  constexpr int n = detail::kPiece<T>;
  T lane[Vec<T>::kLanes];
  store(lane, sums);
  for (int i = 0; i < n; ++i)
    out[i] = Vec<T>::kLanes > n ? lane[i] + lane[(n + i) % Vec<T>::kLanes] : lane[i];
#endif
}

constexpr int kReduceRows = kVectorBytes / 16;

// The same for kReduceRows rows of kPiece vectors; row r's sums go to out + r * stride.
template <class T>
SEQ2SEQ_EXT_INLINE void reduce_rows(const Vec<T>* a, T* out, int64_t stride) {
  constexpr int n = detail::kPiece<T>, kPieces = Vec<T>::kLanes / n;
  if constexpr (kPieces == 4) {
    auto r0 = reduce_pieces(a).v, r1 = reduce_pieces(a + n).v;
    auto r2 = reduce_pieces(a + 2 * n).v, r3 = reduce_pieces(a + 3 * n).v;
    detail::transpose_pieces(r0, r1, r2, r3);
    const auto sums = (r0 + r1) + (r2 + r3);
#pragma GCC unroll 4
    for (int p = 0; p < kPieces; ++p) {
      std::memcpy(out + p * stride, reinterpret_cast<const char*>(&sums) + 16 * p, 16);
    }
  } else {
#pragma GCC unroll 2
    for (int p = 0; p < kPieces; ++p) reduce_row(a + p * n, out + p * stride);
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
