// SPDX-License-Identifier: MIT
#include "bench.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernel_bench {
namespace {

// An operand of any orientation in a larger array: `offset` elements into it (unaligned), lines
// `gap` elements further apart than they are long.
struct Matrix {
  Array memory;
  int64_t row_stride, column_stride, offset;

  Matrix(Bench& bench, DType dtype, int64_t rows, int64_t columns, bool transposed, int64_t gap,
         int64_t offset)
      : memory(bench.normal(
            dtype, offset + (transposed ? columns * (rows + gap) : rows * (columns + gap)))),
        row_stride(transposed ? 1 : columns + gap),
        column_stride(transposed ? rows + gap : 1),
        offset(offset) {}

  const void* data() const {
    return static_cast<const char*>(memory.data()) + offset * kernels::size_of(memory.dtype());
  }
  double operator()(int64_t i, int64_t j) const {
    return memory.values()[offset + i * row_stride + j * column_stride];
  }
};

}  // namespace

BENCH_CASE(gemm, "M=33 N=65 K=70 ta=0 tb=1 accumulate=0 wide=0 gap=0 offset=0") {
  const int64_t M = bench.args.size("M", 33), N = bench.args.size("N", 65),
                K = bench.args.size("K", 70);
  const bool ta = bench.args.flag("ta"), tb = bench.args.flag("tb", true);
  const bool accumulate = bench.args.flag("accumulate"), wide = bench.args.flag("wide");
  const int64_t gap = bench.args.size("gap", 0), offset = bench.args.size("offset", 0);
  const DType dtype = bench.args.dtype(), c_dtype = wide ? DType::kFloat32 : dtype;
  const Matrix a(bench, dtype, M, K, ta, gap, offset), b(bench, dtype, K, N, tb, gap, offset);
  const Array c = accumulate ? bench.normal(c_dtype, M * (N + gap)) : Array(c_dtype, M * (N + gap));

  kernels::GemmParams p{};
  p.dtype = dtype;
  p.m = M, p.n = N, p.k = K;
  p.a = a.data();
  p.a_stride_m = a.row_stride;
  p.a_stride_k = a.column_stride;
  p.b = b.data();
  p.b_stride_k = b.row_stride;
  p.b_stride_n = b.column_stride;
  p.c = c.data();
  p.c_stride_m = N + gap;
  p.accumulate = accumulate;
  p.wide = wide;

  const std::vector<double> before = c.download();
  bench.launch([&] { return kernels::cuda::gemm(p, bench.runtime); });
  const std::vector<double> after = c.download();
  std::vector<double> expected, got;
  bool untouched = true;
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t j = 0; j < N; ++j) {
      long double sum = accumulate ? c.values()[i * p.c_stride_m + j] : 0;
      for (int64_t k = 0; k < K; ++k) sum += static_cast<long double>(a(i, k)) * b(k, j);
      expected.push_back(double(sum));
      got.push_back(after[i * p.c_stride_m + j]);
    }
    for (int64_t j = N; j < N + gap; ++j) {
      const double x = before[i * p.c_stride_m + j], y = after[i * p.c_stride_m + j];
      untouched &= x == y || (x != x && y != y);
    }
  }
  const double units = kernels::size_of(c_dtype) == 2 ? 1 : 8;
  bench.check("c", got, expected, c_dtype, units);
  if (gap > 0) bench.check_true("between the rows of c", untouched);
  bench.time([&] { return kernels::cuda::gemm(p, bench.runtime); },
             double(M * K + K * N + M * N) * kernels::size_of(dtype), 2.0 * M * N * K);
}

}  // namespace seq2seq_ext::kernel_bench
