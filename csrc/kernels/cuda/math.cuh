// SPDX-License-Identifier: MIT
// Scalars on the GPU: storage types, conversions, and the elementary functions that the cells take
// (cells/lstm.h: M).
#pragma once

#include "common/dtype.h"
#include "cuda/gpu/gpu.h"

namespace seq2seq_ext::kernels::cuda {

using bf16 = __nv_bfloat16;
using fp16 = __half;

// Storage type -> the type that sums and cell states have.
template <class T>
struct AccOfT {
  using type = float;
};
template <>
struct AccOfT<double> {
  using type = double;
};
template <class T>
using AccOf = typename AccOfT<T>::type;

__device__ inline float to_acc(float x) { return x; }
__device__ inline double to_acc(double x) { return x; }
__device__ inline float to_acc(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_acc(fp16 x) { return __half2float(x); }

template <class T>
__device__ inline T from_acc(AccOf<T> x) {
  return x;
}
template <>
__device__ inline bf16 from_acc<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline fp16 from_acc<fp16>(float x) {
  return __float2half_rn(x);
}

// The elementary functions of one accumulator type, accurate to its rounding (no fast-math: an
// error here grows with T).
template <class A>
struct Math {
  using V = A;
  __device__ static A constant(double x) { return static_cast<A>(x); }
  __device__ static A sigmoid(A x) { return A(1) / (A(1) + exp(-x)); }
  __device__ static A tanh(A x) { return ::tanh(x); }
  __device__ static A relu(A x) { return x < A(0) ? A(0) : x; }  // NaN stays
  __device__ static A where_positive(A condition, A x) { return condition > A(0) ? x : A(0); }
};

// Calls f with a value of the storage type.
template <class F>
auto dispatch_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(double{});
    case DType::kBFloat16:
      return f(bf16{});
    case DType::kFloat16:
      return f(fp16{});
    default:
      return f(float{});
  }
}

}  // namespace seq2seq_ext::kernels::cuda
