// SPDX-License-Identifier: MIT
// Products of activation rows with weight rows, out[b][v] = a[b] . w[v], straight from row-major
// weights.
//
// Lanes run along k: lane l adds up the products at k = l, l + lanes, ... in order, and one tree
// adds the lanes. That is the sum's definition, whatever the tile: a row's result depends neither
// on the other rows nor on how they are grouped.
#pragma once

#include "cpu/reduce.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// How weights of storage type S are multiplied: widened to the compute type ...
template <class S>
struct Widened {
  using Weight = S;
  using Activation = AccOf<S>;
  using Acc = Vec<AccOf<S>>;
  static constexpr int kStep = Acc::kLanes;  // k a vector
  static SEQ2SEQ_EXT_INLINE Acc load_weight(const S* p) { return load(p); }
  static SEQ2SEQ_EXT_INLINE Acc load_weight(const S* p, int n) { return load(p, n); }
  static SEQ2SEQ_EXT_INLINE Acc load_activation(const Activation* p) { return load(p); }
  static SEQ2SEQ_EXT_INLINE Acc add(Acc acc, Acc w, Acc a) { return fma(w, a, acc); }
};

// ... or, with the instruction for it, as pairs of bf16.
struct Pairs {
  using Weight = BFloat16;
  using Activation = BFloat16;
  using Acc = Vec<float>;
  static constexpr int kStep = 2 * Acc::kLanes;
  static SEQ2SEQ_EXT_INLINE PairVec load_weight(const BFloat16* p) { return load_pairs(p); }
  static SEQ2SEQ_EXT_INLINE PairVec load_weight(const BFloat16* p, int n) {
    return load_pairs(p, n);
  }
  static SEQ2SEQ_EXT_INLINE PairVec load_activation(const BFloat16* p) { return load_pairs(p); }
  static SEQ2SEQ_EXT_INLINE Acc add(Acc acc, PairVec w, PairVec a) { return dot_pairs(acc, w, a); }
};

#if defined(SEQ2SEQ_EXT_ISA_AVX512)
template <class S>
using Product = std::conditional_t<std::is_same_v<S, BFloat16>, Pairs, Widened<S>>;
#else
template <class S>
using Product = Widened<S>;
#endif

// Activation rows are handed over with this stride, filled up with zeros.
template <class P>
int64_t padded_length(int64_t k) {
  return (k + P::kStep - 1) / P::kStep * P::kStep;
}

constexpr int kTileWeights = 4;  // weight rows a tile
#if defined(SEQ2SEQ_EXT_ISA_AVX512)
constexpr int kTileRows = 6;  // activation rows a tile, at most: 24 accumulators of 32 registers
#else
constexpr int kTileRows = 2;  // 8 of 16
#endif

// Rows of an `out` must have room for this many columns past the last.
constexpr int kTileOverhang = kTileWeights - 1;

// kTileWeights x kRows products. `ahead` + 64 * kAhead bytes a step of k are fetched into the cache
// for later.
template <class P, int kRows, int kAhead>
void tile_products(const typename P::Weight* w, int64_t w_stride, int64_t k,
                   const typename P::Activation* a, int64_t a_stride, typename P::Acc::Scalar* out,
                   int64_t out_stride, const char* ahead) {
  using Acc = typename P::Acc;
  constexpr int n = detail::kPiece<typename Acc::Scalar>;
  Acc acc[kTileWeights / n][kRows][n];  // in the order in which they are reduced
#pragma GCC unroll 8
  for (int v = 0; v < kTileWeights; ++v) {
#pragma GCC unroll 8
    for (int b = 0; b < kRows; ++b) acc[v / n][b][v % n] = Acc(typename Acc::Scalar(0));
  }
  const auto add = [&](const auto& load_weight, int64_t i) SEQ2SEQ_EXT_LAMBDA_INLINE {
    decltype(P::load_weight(w)) weight[kTileWeights];
#pragma GCC unroll 8
    for (int v = 0; v < kTileWeights; ++v) weight[v] = load_weight(w + v * w_stride + i);
#pragma GCC unroll 8
    for (int b = 0; b < kRows; ++b) {
      const auto activation = P::load_activation(a + b * a_stride + i);
#pragma GCC unroll 8
      for (int v = 0; v < kTileWeights; ++v) {
        acc[v / n][b][v % n] = P::add(acc[v / n][b][v % n], weight[v], activation);
      }
    }
  };
  const int64_t whole = k / P::kStep * P::kStep;
  for (int64_t i = 0; i < whole; i += P::kStep) {
    add([](const typename P::Weight* p) SEQ2SEQ_EXT_LAMBDA_INLINE { return P::load_weight(p); }, i);
#pragma GCC unroll 4
    for (int line = 0; line < kAhead; ++line) __builtin_prefetch(ahead + 64 * line, 0, 2);
    ahead += 64 * kAhead;
  }
  if (whole < k) {
    const int rest = static_cast<int>(k - whole);
    add([rest](const typename P::Weight* p)
            SEQ2SEQ_EXT_LAMBDA_INLINE { return P::load_weight(p, rest); },
        whole);
  }
#pragma GCC unroll 2
  for (int g = 0; g < kTileWeights / n; ++g) {
    constexpr int kTogether = kRows / kReduceRows * kReduceRows;
#pragma GCC unroll 4
    for (int b = 0; b < kTogether; b += kReduceRows) {
      reduce_rows(&acc[g][b][0], out + g * n + b * out_stride, out_stride);
    }
#pragma GCC unroll 4
    for (int b = kTogether; b < kRows; ++b) reduce_row(&acc[g][b][0], out + g * n + b * out_stride);
  }
}

// The tile for a number of rows known at run time only.
template <class P, int kAhead, int kRows>
SEQ2SEQ_EXT_INLINE void tile_products_for(int64_t rows, const typename P::Weight* w,
                                          int64_t w_stride, int64_t k,
                                          const typename P::Activation* a, int64_t a_stride,
                                          typename P::Acc::Scalar* out, int64_t out_stride,
                                          const char* ahead) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return tile_products_for<P, kAhead, kRows - 1>(rows, w, w_stride, k, a, a_stride, out,
                                                     out_stride, ahead);
    }
  }
  tile_products<P, kRows, kAhead>(w, w_stride, k, a, a_stride, out, out_stride, ahead);
}

// Activation rows that share one pass over a block of weights: as many as stay in the first-level
// cache next to a tile of weights.
template <class P>
int64_t rows_per_pass(int64_t a_stride) {
  constexpr int64_t kCacheBytes = 32 << 10;
  const int64_t row_bytes = a_stride * static_cast<int64_t>(sizeof(typename P::Activation));
  const int64_t tiles = kCacheBytes / std::max<int64_t>(1, row_bytes * kTileRows);
  return kTileRows * std::clamp<int64_t>(tiles, 1, 8);
}

// out[b][v] = a[b] . w[v] for `rows` rows of a and `count` rows of w. `fetch_ahead`: w is not in
// the cache, and what follows it in memory is wanted next. Less code where `rows` <= kMaxRows, or
// where nothing is ever fetched ahead, is known at compile time.
template <class P, int kMaxRows = kTileRows, bool kMayFetch = true>
void row_products(const typename P::Weight* w, int64_t w_stride, int64_t count, int64_t k,
                  const typename P::Activation* a, int64_t a_stride, int64_t rows,
                  typename P::Acc::Scalar* out, int64_t out_stride, bool fetch_ahead) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t tile_bytes = kTileWeights * w_stride * static_cast<int64_t>(sizeof(*w));
  int64_t step = kTileWeights;
  for (int64_t v = 0; v < count; v += step) {
    const typename P::Weight* tile = w + v * w_stride;
    int64_t stride = w_stride;
    if (count - v < kTileWeights) {  // the last few one by one, each as a tile of itself
      stride = 0;
      step = 1;
    }
    // The fetches of the next tile of weights are spread over two tiles of rows.
    const char* ahead = reinterpret_cast<const char*>(tile) + tile_bytes;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t b = t * kTileRows;
      const auto compute = [&](auto lines) SEQ2SEQ_EXT_LAMBDA_INLINE {
        tile_products_for<P, decltype(lines)::value, kMaxRows>(
            rows - b, tile, stride, k, a + b * a_stride, a_stride, out + b * out_stride + v,
            out_stride, ahead);
        ahead += decltype(lines)::value * (k / P::kStep) * 64;
      };
      if (!kMayFetch || !fetch_ahead || t >= 2) {
        compute(std::integral_constant<int, 0>());
      } else if (tiles == 1) {
        compute(std::integral_constant<int, kMayFetch ? 4 : 0>());
      } else {
        compute(std::integral_constant<int, kMayFetch && kMaxRows == kTileRows ? 2 : 0>());
      }
    }
  }
}

// Copies rows of activations to what row_products takes: converted, each filled up with zeros.
template <class P, class S>
void pack_activations(const S* source, int64_t rows, int64_t k, typename P::Activation* packed) {
  const int64_t stride = padded_length<P>(k);
  for (int64_t b = 0; b < rows; ++b) {
    for (int64_t i = 0; i < stride; ++i) {
      typename P::Activation& to = packed[b * stride + i];
      if constexpr (std::is_same_v<S, typename P::Activation>) {
        to = i < k ? source[b * k + i] : S{};
      } else {
        to = i < k ? to_acc(source[b * k + i]) : typename P::Activation(0);
      }
    }
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
