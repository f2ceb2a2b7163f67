// SPDX-License-Identifier: MIT
#pragma once

#include "cuda/cross_entropy.h"
#include "cuda/product.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kLogitWarps = 4;

template <class T>
constexpr DType kDTypeOf = DType::kFloat32;
template <>
constexpr DType kDTypeOf<double> = DType::kFloat64;
template <>
constexpr DType kDTypeOf<bf16> = DType::kBFloat16;
template <>
constexpr DType kDTypeOf<fp16> = DType::kFloat16;

// The larger; b where one is NaN.
template <class A>
__device__ A larger(A a, A b) {
  return a > b ? a : b;
}

// What exponents are taken relative to: nothing to subtract where all are -inf.
template <class A>
__device__ A shift_of(A largest) {
  return largest == -A(INFINITY) ? A(0) : largest;
}

// The sum over the lanes that hold the same columns (or words), in all of them.
template <int kFirst, int kLast, class A, class Op>
__device__ A across_lanes(A x, const Op& op) {
#pragma unroll
  for (int distance = kFirst; distance <= kLast; distance *= 2) {
    x = op(x, __shfl_xor_sync(0xffffffffu, x, distance));
  }
  return x;
}

// One tile of logits: words [first_word, + kM) by rows [first_row, + kN).
template <class T>
struct Logits {
  static constexpr LogitTile kTile = logit_tile(kDTypeOf<T>);
  using P = Product<T, kTile.words, kTile.rows, kLogitWarps, 2>;
  using A = AccOf<T>;

  P product;
  int64_t* target;  // [kN]: ignore_index past the last row

  __device__ explicit Logits(gpu::Carver& carver)
      : product(carver), target(carver.take<int64_t>(P::kN)) {}
  static constexpr size_t shared_bytes() { return P::shared_bytes() + P::kN * sizeof(int64_t); }

  // Whether any of the rows counts. A barrier.
  __device__ bool load_targets(const CrossEntropyInputs& in, int64_t first_row) const {
    bool counts = false;
    for (int i = threadIdx.x; i < P::kN; i += P::kThreads) {
      target[i] = first_row + i < in.N ? in.target[first_row + i] : in.ignore_index;
      counts |= target[i] != in.ignore_index;
    }
    return __syncthreads_or(counts) != 0;
  }

  // acc = logits, bias included; -inf past the last word.
  __device__ void compute(const CrossEntropyInputs& in, bool aligned, int64_t first_word,
                          int64_t first_row, A (&acc)[P::kRows][P::kCols]) {
    const T* const weight = static_cast<const T*>(in.weight);
    const T* const hidden = static_cast<const T*>(in.hidden);
    product.run(
        [&](int i) { return first_word + i < in.V ? weight + (first_word + i) * in.H : nullptr; },
        [&](int i) {  // rows to ignore may hold anything
          return target[i] == in.ignore_index ? nullptr : hidden + (first_row + i) * in.H;
        },
        in.H, aligned, acc);
    const T* const bias = static_cast<const T*>(in.bias);
#pragma unroll
    for (int r = 0; r < P::kRows; ++r) {
      const int64_t word = first_word + P::row(r);
      const A b = word >= in.V ? -A(INFINITY) : bias == nullptr ? A(0) : A(to_acc(bias[word]));
#pragma unroll
      for (int c = 0; c < P::kCols; ++c) acc[r][c] += b;
    }
  }

  // The row of the tile that is column `column`'s target; -1: none.
  __device__ int target_row(int column, int64_t first_word) const {
    const int64_t row = target[column] - first_word;
    return row >= 0 && row < P::kM ? int(row) : -1;
  }

  static bool aligned(const CrossEntropyInputs& in) {
    return rows_aligned<T>(in.weight, in.H, in.H) && rows_aligned<T>(in.hidden, in.H, in.H);
  }
};

template <class A>
__device__ A class_weight(const CrossEntropyInputs& in, int64_t word) {
  return in.class_weight == nullptr ? A(1) : static_cast<const A*>(in.class_weight)[word];
}
// NaN where there is no such class: everything of such a row becomes NaN.
template <class A>
__device__ A target_weight(const CrossEntropyInputs& in, int64_t target) {
  return target < 0 || target >= in.V ? A(NAN) : class_weight<A>(in, target);
}

template <class Args>
Status launch_tiles(const char* name, void (*kernel)(Args, bool), const Args& args, bool aligned,
                    dim3 grid, int threads, size_t shared, const Runtime& runtime) {
  gpu::Config config;
  config.grid = grid;
  config.block = dim3(unsigned(threads));
  config.smem = shared;
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = gpu::launch(config, name, kernel, args, aligned);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure(name, error));
}

}  // namespace
}  // namespace seq2seq_ext::kernels::cuda
