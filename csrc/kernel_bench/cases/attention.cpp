// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "bench.h"
#include "cpu/launch.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernel_bench {
namespace {

using kernels::AttentionScore;
using kernels::AttentionStepParams;

// A problem and what the CPU kernel makes of it in float64. Memory of keys and values is (S, B,
// ...) if strided, with rows of odd width, and NaN past every row's length.
struct Attention {
  Bench& bench;
  const DType dtype;
  const int64_t B, Q, A, S, C;
  const bool additive, project, strided;
  const double scale;
  const int64_t key_width, value_width;
  Array query, w_query, v;
  std::optional<Integers<int64_t>> lengths;
  std::optional<Array> keys, values;
  std::vector<double> context, weights;

  explicit Attention(Bench& b)
      : bench(b),
        dtype(b.args.dtype()),
        B(b.args.size("B", 5)),
        Q(b.args.flag("project", true) ? b.args.size("Q", 33) : b.args.size("A", 70)),
        A(b.args.size("A", 70)),
        S(b.args.size("S", 50)),
        C(b.args.size("C", 63)),
        additive(b.args.flag("additive")),
        project(b.args.flag("project", true)),
        strided(b.args.flag("strided")),
        scale(additive ? 1 : 1 / std::sqrt(double(A))),
        key_width(A + strided),
        value_width(C + 3 * strided),
        query(b.normal(dtype, B * Q)),
        w_query(b.normal(dtype, A * Q, 1 / std::sqrt(double(Q)))),
        v(b.normal(dtype, A, 1 / std::sqrt(double(A)))) {
    if (b.args.flag("lengths", true)) {
      std::vector<int64_t> given(B);
      for (int64_t i = 0; i < B; ++i) {
        given[i] = i == 0 ? S : i == 1 ? 0 : int64_t(b.random() % (S + 1));
      }
      lengths.emplace(given);
    }
    keys.emplace(padded(key_width));
    values.emplace(padded(value_width));
    run_oracle();
  }

  int64_t length(int64_t b) const { return lengths ? lengths->values()[b] : S; }
  int64_t stride_b(int64_t width) const { return strided ? width : S * width; }
  int64_t stride_s(int64_t width) const { return strided ? B * width : width; }

  Array padded(int64_t width) {
    std::vector<double> x = bench.normal(dtype, B * S * width).values();
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t s = length(b); s < S; ++s) {
        std::fill_n(x.begin() + b * stride_b(width) + s * stride_s(width), width, NAN);
      }
    }
    return Array(dtype, std::move(x));
  }

  AttentionStepParams params() const {
    AttentionStepParams p{};
    p.score = additive ? AttentionScore::kAdditive : AttentionScore::kDot;
    p.dtype = dtype;
    p.B = B, p.Q = Q, p.A = A, p.S = S, p.C = C;
    p.scale = scale;
    p.query = query.data();
    p.w_query = project ? w_query.data() : nullptr;
    p.v = additive ? v.data() : nullptr;
    p.keys = keys->data();
    p.keys_stride_b = stride_b(key_width), p.keys_stride_s = stride_s(key_width);
    p.values = values->data();
    p.values_stride_b = stride_b(value_width), p.values_stride_s = stride_s(value_width);
    p.lengths = lengths ? lengths->data() : nullptr;
    return p;
  }

  void run_oracle() {
    AttentionStepParams p = params();
    p.dtype = DType::kFloat64;
    p.query = query.oracle();
    if (project) p.w_query = w_query.oracle();
    if (additive) p.v = v.oracle();
    p.keys = keys->oracle();
    p.values = values->oracle();
    if (lengths) p.lengths = lengths->values().data();
    context.resize(B * C);
    weights.resize(B * S);
    p.context = context.data();
    p.weights = weights.data();
    const kernels::Status status = kernels::cpu::attention_step(p, kernels::default_runtime(1));
    if (!status) throw std::runtime_error(status.message());
  }

  struct Found {
    std::vector<double> context, weights;
  };

  // `count` rows from `first`, with a source of S positions.
  Found run(int64_t first, int64_t count, int64_t source) {
    AttentionStepParams p = params();
    const int64_t size = kernels::size_of(dtype);
    p.B = count, p.S = source;
    p.query = static_cast<const char*>(p.query) + first * Q * size;
    p.keys = static_cast<const char*>(p.keys) + first * p.keys_stride_b * size;
    p.values = static_cast<const char*>(p.values) + first * p.values_stride_b * size;
    if (lengths) p.lengths += first;
    const Array context_out(dtype, count * C), weights_out(dtype, count * source);
    p.context = context_out.data();
    p.weights = weights_out.data();
    bench.launch([&] { return kernels::cuda::attention_step(p, bench.runtime); });
    return {context_out.download(), weights_out.download()};
  }

  // Row by row, and with no more padding than the row needs.
  void check_invariance(const Found& whole) {
    bool right = true;
    const auto same = [](const double* a, const double* b, int64_t n) {
      return n == 0 || std::memcmp(a, b, n * sizeof(double)) == 0;
    };
    for (int64_t b = 0; b < std::min<int64_t>(B, 6); ++b) {
      for (const int64_t source : {length(b), S}) {
        const Found alone = run(b, 1, source);
        right &= same(alone.context.data(), whole.context.data() + b * C, C);
        right &= same(alone.weights.data(), whole.weights.data() + b * S, source);
      }
    }
    bench.check_true("rows alone, without padding", right);
    const Found again = run(0, B, S);
    bench.check_true("a second run", same(again.context.data(), whole.context.data(), B * C) &&
                                         same(again.weights.data(), whole.weights.data(), B * S));
  }
};

}  // namespace

BENCH_CASE(attention_step,
           "B=5 Q=33 A=70 S=50 C=63 additive=0 project=1 lengths=1 strided=0 invariance=1") {
  const bool invariance = bench.args.flag("invariance", true);
  Attention problem(bench);
  const Attention::Found found = problem.run(0, problem.B, problem.S);
  // The oracle of float64 rounds as the kernel does.
  const double units = problem.dtype == DType::kFloat64 ? 16 : 4;
  bench.check("context", found.context, problem.context, problem.dtype, units);
  std::vector<double> weights_found = found.weights, weights_expected = problem.weights;
  for (std::vector<double>* x : {&weights_found, &weights_expected}) {
    for (double& weight : *x) weight *= double(problem.S);  // about 1, so that errors count
  }
  bench.check("weights * S", weights_found, weights_expected, problem.dtype, units);
  if (invariance) problem.check_invariance(found);

  AttentionStepParams p = problem.params();
  const Array context(problem.dtype, problem.B * problem.C);
  const Array weights(problem.dtype, problem.B * problem.S);
  p.context = context.data();
  p.weights = weights.data();
  const double size = double(kernels::size_of(problem.dtype));
  bench.time([&] { return kernels::cuda::attention_step(p, bench.runtime); },
             size * (problem.B * problem.S * double(problem.A + problem.C) +
                     (problem.project ? double(problem.A) * problem.Q : 0)),
             2.0 * problem.B *
                 (problem.S * double(problem.A + problem.C) +
                  (problem.project ? double(problem.A) * problem.Q : 0)));
}

}  // namespace seq2seq_ext::kernel_bench
