// SPDX-License-Identifier: MIT
// Forward: a block's rows go through a slice of the vocabulary with running sums. Thread n keeps
// those of row n.
#pragma once

#include "cuda/cross_entropy.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

template <class A>
struct SoftmaxSums {
  A largest = -A(INFINITY), sum = 0, weighted = 0;

  __device__ void add(const SoftmaxSums& part) {
    const A top = larger(largest, part.largest), shift = shift_of(top);
    sum = sum * exp(largest - shift) + part.sum * exp(part.largest - shift);
    largest = top;
    weighted += part.weighted;
  }
};

template <class T>
__global__ void __launch_bounds__(Logits<T>::P::kThreads, 1)
    logit_sums_kernel(LogitSums args, bool aligned) {
  using P = typename Logits<T>::P;
  using A = AccOf<T>;
  static_assert(P::kThreads >= P::kN);
  const CrossEntropyInputs& in = args.in;
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  Logits<T> logits(carver);
  SoftmaxSums<A>* const parts = carver.take<SoftmaxSums<A>>(P::kWarps * P::kN);
  const int64_t first_row = int64_t(blockIdx.x) * P::kN;
  if (!logits.load_targets(in, first_row)) return;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  SoftmaxSums<A> sums;
  const int64_t begin = int64_t(blockIdx.y) * kSliceTiles * P::kM;
  const int64_t end = min(begin + kSliceTiles * P::kM, in.V);
#pragma unroll 1
  for (int64_t word = begin; word < end; word += P::kM) {
    A acc[P::kRows][P::kCols] = {};
    logits.compute(in, aligned, word, first_row, acc);
    A weight[P::kRows];
#pragma unroll
    for (int r = 0; r < P::kRows; ++r) {
      const int64_t w = word + P::row(r);
      weight[r] = w < in.V && args.weighted != nullptr ? class_weight<A>(in, w) : A(0);
    }
#pragma unroll
    for (int c = 0; c < P::kCols; ++c) {
      const int column = P::col(c), own = logits.target_row(column, word);
      SoftmaxSums<A> part;
#pragma unroll
      for (int r = 0; r < P::kRows; ++r) {
        part.largest = larger(part.largest, acc[r][c]);
        if (P::row(r) == own && first_row + column < in.N) {  // ignore_index may be a word, too
          static_cast<A*>(args.target_logit)[first_row + column] = acc[r][c];
        }
      }
      part.largest = across_lanes<4, 16>(part.largest, [](A a, A b) { return larger(a, b); });
      const A shift = shift_of(part.largest);
#pragma unroll
      for (int r = 0; r < P::kRows; ++r) part.sum += exp(acc[r][c] - shift);
      part.sum = across_lanes<4, 16>(part.sum, [](A a, A b) { return a + b; });
      if (args.weighted != nullptr) {
#pragma unroll
        for (int r = 0; r < P::kRows; ++r) {
          if (word + P::row(r) < in.V) part.weighted += weight[r] * acc[r][c];
        }
        part.weighted = across_lanes<4, 16>(part.weighted, [](A a, A b) { return a + b; });
      }
      if (lane < 4) parts[warp * P::kN + column] = part;
    }
    __syncthreads();
    if (threadIdx.x < P::kN) {
#pragma unroll
      for (int w = 0; w < P::kWarps; ++w) sums.add(parts[w * P::kN + threadIdx.x]);
    }
  }
  const int64_t row = first_row + threadIdx.x;
  if (threadIdx.x >= P::kN || row >= in.N) return;
  const int64_t at = row * args.slices + blockIdx.y;
  static_cast<A*>(args.largest)[at] = sums.largest;
  static_cast<A*>(args.sum)[at] = sums.sum;
  if (args.weighted != nullptr) static_cast<A*>(args.weighted)[at] = sums.weighted;
}

}  // namespace

template <class T>
Status logit_sums(const LogitSums& args, const Runtime& runtime) {
  using P = typename Logits<T>::P;
  const size_t shared =
      Logits<T>::shared_bytes() + P::kWarps * P::kN * sizeof(SoftmaxSums<AccOf<T>>);
  const dim3 grid(unsigned((args.in.N + P::kN - 1) / P::kN), unsigned(args.slices));
  return launch_tiles("logit_sums", logit_sums_kernel<T>, args, Logits<T>::aligned(args.in), grid,
                      P::kThreads, shared, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
