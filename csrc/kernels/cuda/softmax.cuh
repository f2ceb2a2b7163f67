// SPDX-License-Identifier: MIT
// Softmax in parts that are put together later: each part has its own maximum. (cpu/softmax.h is
// the same on vectors.)
#pragma once

#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

template <class A>
__device__ inline A minus_infinity() {
  return -A(INFINITY);
}

__device__ inline float exp_of(float x) { return expf(x); }
__device__ inline double exp_of(double x) { return exp(x); }

// x y + z, rounded once whatever the compiler makes of products and sums.
__device__ inline float fma_of(float x, float y, float z) { return fmaf(x, y, z); }
__device__ inline double fma_of(double x, double y, double z) { return fma(x, y, z); }

// The largest of all lanes' values, in every lane. A NaN may or may not be passed over.
template <class A>
__device__ inline A warp_max(A x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const A other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// The sum over all lanes, in every lane the same bits: each adds the same pairs.
template <class A>
__device__ inline A warp_sum(A x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// max and sum of exp(x - max) of some values. The sum is NaN if a value is NaN or +inf; it is 0 if
// all are -inf.
template <class A>
struct SoftmaxPart {
  A max, sum;

  __device__ static SoftmaxPart none() { return {minus_infinity<A>(), A(0)}; }

  // What is subtracted before exp: -inf would make NaN of values that are all -inf.
  __device__ A shift() const { return max == minus_infinity<A>() ? A(0) : max; }

  // The same bits whichever of the two is `other`.
  __device__ SoftmaxPart operator+(const SoftmaxPart& other) const {
    const bool smaller = other.max > max;
    const SoftmaxPart& high = smaller ? other : *this;
    const SoftmaxPart& low = smaller ? *this : other;
    return {high.max, high.sum + low.sum * exp_of(low.max - high.shift())};
  }
};

template <class A>
__device__ inline SoftmaxPart<A> shuffle_xor(const SoftmaxPart<A>& part, int step) {
  return {__shfl_xor_sync(kAllLanes, part.max, step), __shfl_xor_sync(kAllLanes, part.sum, step)};
}

// The part of `n` values a lane, by a warp.
template <int n, class A>
__device__ inline SoftmaxPart<A> warp_softmax_part(const A (&x)[n]) {
  SoftmaxPart<A> part{x[0], A(0)};
#pragma unroll
  for (int i = 1; i < n; ++i) part.max = x[i] > part.max ? x[i] : part.max;
  part.max = warp_max(part.max);
#pragma unroll
  for (int i = 0; i < n; ++i) part.sum += exp_of(x[i] - part.shift());
  part.sum = warp_sum(part.sum);
  return part;
}

// `count` parts put together by a warp, in an order that depends on `count` alone; in every lane.
template <class A>
__device__ inline SoftmaxPart<A> warp_merge_parts(const SoftmaxPart<A>* parts, int64_t count) {
  SoftmaxPart<A> all = SoftmaxPart<A>::none();
  for (int64_t i = threadIdx.x % 32; i < count; i += 32) all = all + parts[i];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) all = all + shuffle_xor(all, step);
  return all;
}

}  // namespace seq2seq_ext::kernels::cuda
