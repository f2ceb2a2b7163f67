// SPDX-License-Identifier: MIT
#include <algorithm>

#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

// c = the parts' sum, in order (+ c).
template <class T, class C>
__global__ void __launch_bounds__(256)
    add_parts_kernel(const __grid_constant__ GemmParams p, const AccOf<T>* parts, int64_t count) {
  const int64_t at = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (at >= p.m * p.n) return;
  C& c = static_cast<C*>(p.c)[at / p.n * p.c_stride_m + at % p.n];
  AccOf<T> sum = p.accumulate ? AccOf<T>(to_acc(c)) : AccOf<T>(0);
  for (int64_t i = 0; i < count; ++i) sum += parts[i * p.m * p.n + at];
  c = from_acc<C>(sum);
}

template <class T, class C>
Status add_parts(const GemmParams& p, const void* parts, int64_t count, void* stream) {
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>((p.m * p.n + 255) / 256));
  config.block = dim3(256);
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error =
      GPU_LAUNCH(config, (add_parts_kernel<T, C>), p, static_cast<const AccOf<T>*>(parts), count);
  return error == cudaSuccess ? Status::ok() : Status::invalid(gpu::launch_failure("gemm", error));
}

// Parts of k, for products of few tiles and many k (weight gradients): about two blocks a
// multiprocessor, each with a sum worth the extra pass.
int64_t parts_of(const GemmParams& p, int64_t sms) {
  constexpr int64_t kLeast = 512;
  const int64_t tile = gemm_tile(p.dtype);
  const int64_t tiles = (p.m + tile - 1) / tile * ((p.n + tile - 1) / tile);
  return std::clamp<int64_t>(std::min(2 * sms / tiles, p.k / kLeast), 1, 32);
}

template <class T>
Status run(GemmLaunch launch, const Runtime& runtime) {
  const GemmParams p = launch.params;  // launch's become those of one part
  const int64_t parts = parts_of(p, runtime.device.sms);
  if (parts == 1) {
    launch.parts = 1;
    launch.part_k = p.k;
    return gemm_blocks<T>(launch, runtime.stream);
  }
  void* const sums =
      runtime.allocate(parts * p.m * p.n * int64_t(sizeof(AccOf<T>)), runtime.context);
  if (sums == nullptr) return Status::invalid("out of device memory");
  constexpr int64_t kRound = 64;  // k of the longest tile
  launch.part_k = (p.k + parts * kRound - 1) / (parts * kRound) * kRound;
  launch.parts = (p.k + launch.part_k - 1) / launch.part_k;
  launch.part_stride = p.m * p.n;
  launch.params.c = sums;
  launch.params.c_stride_m = p.n;
  launch.params.wide = true;
  launch.params.accumulate = false;
  if (Status status = gemm_blocks<T>(launch, runtime.stream); !status) return status;
  if constexpr (sizeof(T) == 2) {
    if (p.wide) return add_parts<T, float>(p, sums, launch.parts, runtime.stream);
  }
  return add_parts<T, T>(p, sums, launch.parts, runtime.stream);
}

}  // namespace

Status gemm(const GemmParams& p, const Runtime& runtime) {
  if (p.m == 0 || p.n == 0) return Status::ok();
  GemmLaunch launch{};
  launch.params = p;
  launch.a = {p.a, p.a_stride_m, false};
  if (p.a_stride_k != 1 && p.k > 1) launch.a = {p.a, p.a_stride_k, true};
  launch.b = {p.b, p.b_stride_n, false};
  if (p.b_stride_k != 1 && p.k > 1) launch.b = {p.b, p.b_stride_k, true};
  if ((launch.a.across && p.a_stride_m != 1 && p.m > 1) ||
      (launch.b.across && p.b_stride_n != 1 && p.n > 1)) {
    return Status::invalid("gemm: an operand has no unit stride");
  }
  return dispatch_dtype(p.dtype, [&](auto tag) { return run<decltype(tag)>(launch, runtime); });
}

Status large_product(const GemmParams& p, const Runtime& runtime) {
  if (runtime.gemm != nullptr && runtime.gemm(p, runtime.stream, runtime.context)) {
    return Status::ok();
  }
  return gemm(p, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
