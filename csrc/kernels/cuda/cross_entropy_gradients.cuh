// SPDX-License-Identifier: MIT
// Backward: a block makes one tile of logits again and writes the loss's gradient by them.
#pragma once

#include "cuda/cross_entropy.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

// dz = sum * softmax(z) - own at the target - word * class weights
template <class A>
struct RowScale {
  A lse, sum, own, word;

  __device__ RowScale(const LogitGradients& args, int64_t row, int64_t target) {
    const CrossEntropyInputs& in = args.in;
    const A* const sums = static_cast<const A*>(args.sums);
    const bool each = in.reduction == Reduction::kNone;
    A g = static_cast<const A*>(args.d_loss)[each ? row : 0];
    if (in.reduction == Reduction::kMean) g = sums[0] == A(0) ? A(0) : g / sums[0];
    const A smoothing = A(in.label_smoothing), per_word = smoothing / A(in.V);
    const A own_weight = A(1 - in.label_smoothing) * target_weight<A>(in, target);
    lse = static_cast<const A*>(args.lse)[row];
    sum = g * (smoothing > A(0) ? own_weight + per_word * sums[1] : own_weight);
    own = g * own_weight;
    word = g * per_word;
  }
};

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

template <class T>
__global__ void __launch_bounds__(Logits<T>::P::kThreads, 1)
    logit_gradients_kernel(LogitGradients args, bool aligned) {
  using P = typename Logits<T>::P;
  using A = AccOf<T>;
  const CrossEntropyInputs& in = args.in;
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  Logits<T> logits(carver);
  RowScale<A>* const scales = carver.take<RowScale<A>>(P::kN);
  const int64_t first_row = int64_t(blockIdx.x) * P::kN;
  const int64_t first_word = args.v + int64_t(blockIdx.y) * P::kM;

  A acc[P::kRows][P::kCols] = {};
  if (logits.load_targets(in, first_row)) {
    for (int i = threadIdx.x; i < P::kN; i += P::kThreads) {
      if (logits.target[i] == in.ignore_index) continue;
      scales[i] = RowScale<A>(args, first_row + i, logits.target[i]);
    }
    logits.compute(in, aligned, first_word, first_row, acc);  // it passes barriers
  }
  T* const dz = static_cast<T*>(args.dz);
#pragma unroll
  for (int r = 0; r < P::kRows; ++r) {
    const int64_t word = first_word + P::row(r);
    const bool valid = word < args.v + args.words;
    const A weight = valid ? class_weight<A>(in, word) : A(0);
    A total = 0;
#pragma unroll
    for (int c = 0; c < P::kCols; c += 2) {
      A gradient[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = P::col(c + i);
        gradient[i] = 0;
        if (logits.target[column] == in.ignore_index) continue;
        const RowScale<A> scale = scales[column];
        gradient[i] = scale.sum * exp(acc[r][c + i] - scale.lse) - scale.word * weight;
        if (logits.target_row(column, first_word) == P::row(r)) gradient[i] -= scale.own;
      }
      total += gradient[0] + gradient[1];
      const int64_t row = first_row + P::col(c);
      if (valid && row < in.N) {  // a pair's second may be the padding of dz's rows
        *reinterpret_cast<Pair<T>*>(dz + (word - args.v) * args.dz_stride + row) = {
            from_acc<T>(gradient[0]), from_acc<T>(gradient[1])};
      }
    }
    if (args.bias_parts == nullptr) continue;
    total = across_lanes<1, 2>(total, [](A a, A b) { return a + b; });
    if (valid && threadIdx.x % 4 == 0) {
      static_cast<A*>(args.bias_parts)[blockIdx.x * args.words + (word - args.v)] = total;
    }
  }
}

}  // namespace

template <class T>
Status logit_gradients(const LogitGradients& args, const Runtime& runtime) {
  using P = typename Logits<T>::P;
  const size_t shared = Logits<T>::shared_bytes() + P::kN * sizeof(RowScale<AccOf<T>>);
  const dim3 grid(unsigned((args.in.N + P::kN - 1) / P::kN),
                  unsigned((args.words + P::kM - 1) / P::kM));
  return launch_tiles("logit_gradients", logit_gradients_kernel<T>, args,
                      Logits<T>::aligned(args.in), grid, P::kThreads, shared, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
