// SPDX-License-Identifier: MIT
#include "cuda/rows_product.h"

#include <algorithm>

#include "bench.h"

namespace seq2seq_ext::kernel_bench {

BENCH_CASE(rows_product, "B=5 N=33 K=70 gap=0 bias=1 wide=0") {
  Arguments& args = bench.args;
  const int64_t B = args.size("B", 5), N = args.size("N", 33), K = args.size("K", 70);
  const int64_t gap = args.size("gap", 0);
  const bool has_bias = args.flag("bias", true), wide = args.flag("wide");
  const DType dtype = args.dtype(), y_dtype = wide ? DType::kFloat32 : dtype;
  const Array x = bench.normal(dtype, B * (K + gap)), w = bench.normal(dtype, N * K);
  const Array bias = bench.normal(dtype, N);

  std::vector<double> expected(B * N);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t n = 0; n < N; ++n) {
      long double sum = has_bias ? bias.values()[n] : 0.0;
      for (int64_t k = 0; k < K; ++k) {
        sum += static_cast<long double>(x.values()[b * (K + gap) + k]) * w.values()[n * K + k];
      }
      expected[b * N + n] = double(sum);
    }
  }

  // Rows [first, first + count), written `gap` elements apart.
  const auto params = [&](int64_t first, int64_t count, const Array& y) {
    kernels::cuda::RowsProductParams p{};
    p.dtype = dtype;
    p.B = count;
    p.N = N;
    p.K = K;
    p.x = static_cast<const char*>(x.data()) + first * (K + gap) * kernels::size_of(dtype);
    p.x_stride_b = K + gap;
    p.w = w.data();
    if (has_bias) p.bias = bias.data();
    p.y = y.data();
    p.y_stride_b = N + gap;
    p.wide = wide;
    return p;
  };
  const auto result = [&](int64_t first, int64_t count) {
    const Array y(y_dtype, count * (N + gap));
    const auto p = params(first, count, y);
    bench.launch([&] { return kernels::cuda::rows_product(p, bench.runtime); });
    const std::vector<double> padded = y.download();
    std::vector<double> dense;
    for (int64_t b = 0; b < count; ++b) {
      dense.insert(dense.end(), padded.begin() + b * (N + gap), padded.begin() + b * (N + gap) + N);
    }
    return dense;
  };

  const std::vector<double> y = result(0, B);
  bench.check("y", y, expected, y_dtype, kernels::size_of(y_dtype) == 2 ? 1 : 8);
  bool same = true;
  for (const int64_t count : {1, 3, 12, 40}) {
    if (count >= B) break;
    const int64_t first = (B - count) / 2;
    const std::vector<double> part = result(first, count);
    same &= std::equal(part.begin(), part.end(), y.begin() + first * N);
  }
  if (B > 1) bench.check_true("rows alone and in the batch", same);

  const Array out(y_dtype, B * (N + gap));
  const auto p = params(0, B, out);
  bench.time([&] { return kernels::cuda::rows_product(p, bench.runtime); },
             double(N * K + B * (N + K)) * kernels::size_of(dtype), 2.0 * B * N * K);
}

}  // namespace seq2seq_ext::kernel_bench
