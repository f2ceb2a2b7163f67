// SPDX-License-Identifier: MIT
#include "bench.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernel_bench {

BENCH_CASE(gemm, "M=33 N=65 K=70 ta=0 tb=1 accumulate=0 wide=0") {
  const int64_t M = bench.args.size("M", 33), N = bench.args.size("N", 65),
                K = bench.args.size("K", 70);
  const bool ta = bench.args.flag("ta"), tb = bench.args.flag("tb", true);
  const bool accumulate = bench.args.flag("accumulate"), wide = bench.args.flag("wide");
  const DType dtype = bench.args.dtype(), c_dtype = wide ? DType::kFloat32 : dtype;
  const Array a = bench.normal(dtype, M * K), b = bench.normal(dtype, K * N);
  const Array c = accumulate ? bench.normal(c_dtype, M * N) : Array(c_dtype, M * N);

  kernels::GemmParams p{};
  p.dtype = dtype;
  p.m = M, p.n = N, p.k = K;
  p.a = a.data();
  p.a_stride_m = ta ? 1 : K;
  p.a_stride_k = ta ? M : 1;
  p.b = b.data();
  p.b_stride_k = tb ? 1 : N;
  p.b_stride_n = tb ? K : 1;
  p.c = c.data();
  p.c_stride_m = N;
  p.accumulate = accumulate;
  p.wide = wide;

  std::vector<double> expected(M * N, 0.0);
  if (accumulate) expected = c.values();
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t k = 0; k < K; ++k) {
        expected[i * N + j] += a.values()[i * p.a_stride_m + k * p.a_stride_k] *
                               b.values()[k * p.b_stride_k + j * p.b_stride_n];
      }
    }
  }
  bench.launch([&] { return kernels::cuda::gemm(p, bench.runtime); });
  bench.check("c", c, expected, 4);
  bench.time([&] { return kernels::cuda::gemm(p, bench.runtime); },
             double(M * K + K * N + M * N) * kernels::size_of(dtype), 2.0 * M * N * K);
}

}  // namespace seq2seq_ext::kernel_bench
