// SPDX-License-Identifier: MIT
// The block product by itself: tiles of many shapes have to give the same bits.
#include <cstring>

#include "bench.h"
#include "cuda/product.cuh"

namespace seq2seq_ext::kernel_bench {
namespace {

using kernels::Status;
using kernels::cuda::AccOf;

struct ProductProblem {
  const void *w, *x;  // (M, K), (N, K)
  void* y;            // (N, M) sums
  int64_t M, N, K;
  int64_t null_w, null_x;  // rows handed over as null
  bool aligned, pair;      // pair: both products of run_pair, summed
};

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    product_kernel(const __grid_constant__ ProductProblem p) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  Tile tile(carver);
  const int64_t m = int64_t(blockIdx.x) * Tile::kM, n = int64_t(blockIdx.y) * Tile::kN;
  const auto row = [&](const void* rows, int64_t at, int64_t end, int64_t null) -> const T* {
    return at < end && at != null ? static_cast<const T*>(rows) + at * p.K : nullptr;
  };
  const auto w_row = [&](int i) { return row(p.w, m + i, p.M, p.null_w); };
  const auto x_row = [&](int i) { return row(p.x, n + i, p.N, p.null_x); };
  AccOf<T> acc[Tile::kRows][Tile::kCols] = {}, share[Tile::kRows][Tile::kShare];
  tile.run_pair(w_row, x_row, p.K, p.aligned, acc, w_row, x_row, p.pair ? p.K : 0, p.aligned, acc);
  tile.reduce(acc, share);
  if (!Tile::owns_share()) return;
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
    for (int c = 0; c < Tile::kShare; ++c) {
      const int64_t i = m + Tile::row(r), j = n + Tile::share_col(c);
      if (i < p.M && j < p.N) static_cast<AccOf<T>*>(p.y)[j * p.M + i] = share[r][c];
    }
  }
}

using Launcher = Status (*)(const ProductProblem&);

template <class T, int kM, int kN, int kWarps, int kSplit>
Status launch(const ProductProblem& p) {
  using Tile =
      kernels::cuda::Product<T, kM, kN, kWarps, kernels::cuda::default_stages(kM + kN), kSplit>;
  gpu::Config config;
  config.grid = dim3(unsigned((p.M + kM - 1) / kM), unsigned((p.N + kN - 1) / kN));
  config.block = dim3(Tile::kThreads);
  config.smem = Tile::shared_bytes();
  const cudaError_t error = GPU_LAUNCH(config, (product_kernel<T, Tile>), p);
  return error == cudaSuccess ? Status::ok() : Status::invalid("product: launch failed");
}

// Launchers whose results are the same, bit for bit: `split` groups of warps share the work along
// k.
template <class T>
std::vector<Launcher> launchers(int split) {
  if (split == 2) return {launch<T, 16, 24, 1, 2>, launch<T, 64, 16, 2, 2>};
  if (split == 4) return {launch<T, 16, 8, 1, 4>, launch<T, 32, 32, 1, 4>, launch<T, 64, 16, 2, 4>};
  return {launch<T, 64, 8, 1, 1>, launch<T, 64, 64, 4, 1>, launch<T, 128, 16, 8, 1>,
          launch<T, 96, 32, 2, 1>};
}

}  // namespace

BENCH_CASE(product, "M=70 N=9 K=65 split=1|2|4 pair=0 null_w=3 null_x=2 (-1: none)") {
  Arguments& args = bench.args;
  ProductProblem p{};
  p.M = args.size("M", 70), p.N = args.size("N", 9), p.K = args.size("K", 65);
  p.pair = args.flag("pair");
  p.null_w = args.size("null_w", 3), p.null_x = args.size("null_x", 2);
  const int split = static_cast<int>(args.size("split", 1));
  const DType dtype = args.dtype();
  const DType sum_type = dtype == DType::kFloat64 ? dtype : DType::kFloat32;
  const Array w = bench.normal(dtype, p.M * p.K), x = bench.normal(dtype, p.N * p.K);
  p.w = w.data();
  p.x = x.data();

  std::vector<double> expected;
  for (int64_t n = 0; n < p.N; ++n) {
    for (int64_t m = 0; m < p.M; ++m) {
      long double sum = 0;
      for (int64_t k = 0; k < p.K && m != p.null_w && n != p.null_x; ++k) {
        sum += static_cast<long double>(w.values()[m * p.K + k]) * x.values()[n * p.K + k];
      }
      expected.push_back(double(p.pair ? 2 * sum : sum));
    }
  }
  const auto all = kernels::cuda::dispatch_dtype(
      dtype, [&](auto tag) { return launchers<decltype(tag)>(split); });
  const bool alignable = p.K % (16 / kernels::size_of(dtype)) == 0;
  std::vector<double> first;
  bool same = true;
  for (const Launcher run : all) {
    for (const bool aligned : {false, true}) {
      if (aligned && !alignable) continue;
      const Array y(sum_type, p.N * p.M);
      p.y = y.data();
      p.aligned = aligned;
      bench.launch([&] { return run(p); });
      const std::vector<double> got = y.download();
      if (first.empty()) first = got;
      same &= std::memcmp(got.data(), first.data(), got.size() * sizeof(double)) == 0;
    }
  }
  bench.check("y", first, expected, sum_type, 8);
  bench.check_true("all tiles alike", same);
}

}  // namespace seq2seq_ext::kernel_bench
