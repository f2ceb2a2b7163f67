// SPDX-License-Identifier: MIT
#include "cuda/launch.h"
#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

template <class T, class C>
__global__ void __launch_bounds__(256) gemm_kernel(GemmParams p) {
  const int64_t at = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (at >= p.m * p.n) return;
  const int64_t i = at / p.n, j = at % p.n;
  const T* a = static_cast<const T*>(p.a) + i * p.a_stride_m;
  const T* b = static_cast<const T*>(p.b) + j * p.b_stride_n;
  C* c = static_cast<C*>(p.c) + i * p.c_stride_m + j;
  AccOf<T> sum = p.accumulate ? AccOf<T>(to_acc(*c)) : AccOf<T>(0);
  for (int64_t k = 0; k < p.k; ++k) sum += to_acc(a[k * p.a_stride_k]) * to_acc(b[k * p.b_stride_k]);
  *c = from_acc<C>(sum);
}

template <class T, class C>
Status run(const GemmParams& p, const Runtime& runtime) {
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>((p.m * p.n + 255) / 256));
  config.block = dim3(256);
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = GPU_LAUNCH(config, (gemm_kernel<T, C>), p);
  return error == cudaSuccess ? Status::ok() : Status::invalid("gemm: launch failed");
}

}  // namespace

Status gemm(const GemmParams& p, const Runtime& runtime) {
  if (p.m == 0 || p.n == 0) return Status::ok();
  return dispatch_dtype(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      if (p.wide) return run<T, float>(p, runtime);
    }
    return run<T, T>(p, runtime);
  });
}

Status large_product(const GemmParams& p, const Runtime& runtime) {
  if (runtime.gemm != nullptr && runtime.gemm(p, runtime.stream, runtime.context)) return Status::ok();
  return gemm(p, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
