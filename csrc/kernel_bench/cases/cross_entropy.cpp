// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "bench.h"
#include "cpu/launch.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernel_bench {
namespace {

using kernels::CrossEntropyBackwardParams;
using kernels::CrossEntropyForwardParams;
using kernels::CrossEntropyInputs;
using kernels::Reduction;

struct Problem {
  CrossEntropyInputs in{};  // sizes and options; pointers are set per backend
  Array hidden, weight, bias, class_weight, d_loss;
  Integers<int64_t> target;
  bool has_bias, weighted;

  // On the device, or for the oracle on the CPU.
  CrossEntropyInputs inputs(bool oracle) const {
    CrossEntropyInputs result = in;
    const auto data = [&](const Array& a) {
      return oracle ? static_cast<const void*>(a.oracle()) : a.data();
    };
    if (oracle) result.dtype = DType::kFloat64;
    result.hidden = data(hidden);
    result.weight = data(weight);
    result.bias = has_bias ? data(bias) : nullptr;
    result.class_weight = weighted ? data(class_weight) : nullptr;
    result.target = oracle ? target.values().data() : target.data();
    return result;
  }
};

Reduction reduction_named(const std::string& name) {
  if (name == "none") return Reduction::kNone;
  if (name == "sum") return Reduction::kSum;
  if (name == "mean") return Reduction::kMean;
  throw std::invalid_argument("reduction: expected none, sum or mean, got " + name);
}

std::vector<int64_t> targets(Bench& bench, const CrossEntropyInputs& in, double ignored,
                             int64_t wrong) {
  std::vector<int64_t> values(in.N);
  for (int64_t& y : values) {
    y = std::uniform_int_distribution<int64_t>(0, in.V - 1)(bench.random);
    if (std::uniform_real_distribution<double>()(bench.random) < ignored) y = in.ignore_index;
  }
  for (int64_t i = 0; i < std::min(wrong, in.N); ++i) values[in.N - 1 - i] = i % 2 ? in.V : -1 - i;
  return values;
}

Problem problem(Bench& bench) {
  Arguments& args = bench.args;
  CrossEntropyInputs in{};
  in.dtype = args.dtype();
  in.N = args.size("N", 70);
  in.H = args.size("H", 65);
  in.V = args.size("V", 700);
  in.ignore_index = -100;
  in.label_smoothing = static_cast<double>(args.size("smoothing", 10)) / 100;
  in.reduction = reduction_named(args.text("reduction", "mean"));
  const DType state = in.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const bool bias = args.flag("bias", true), weighted = args.flag("weighted");
  const double ignored = static_cast<double>(args.size("ignored", 20)) / 100;
  std::vector<int64_t> target = targets(bench, in, ignored, args.size("wrong", 0));
  // So that gradients are of size 1 with every reduction.
  std::vector<double> d_loss(1, in.reduction == Reduction::kMean ? 1.25 * in.N : 1.25);
  if (in.reduction == Reduction::kNone) {
    d_loss.resize(in.N);
    for (double& g : d_loss) g = std::normal_distribution<double>()(bench.random);
  }
  std::vector<double> class_weight(in.V);
  for (double& c : class_weight) c = std::uniform_real_distribution<double>(0.5, 2)(bench.random);
  return {in,
          bench.normal(in.dtype, in.N * in.H),
          bench.normal(in.dtype, in.V * in.H, 1 / std::sqrt(static_cast<double>(in.H))),
          bench.normal(in.dtype, in.V),
          Array(state, std::move(class_weight)),
          Array(state, std::move(d_loss)),
          Integers<int64_t>(std::move(target)),
          bias,
          weighted};
}

struct Results {
  std::vector<double> loss, lse, sums, d_hidden, d_weight, d_bias;
};

Results oracle(const Problem& p) {
  const CrossEntropyInputs in = p.inputs(true);
  Results r;
  r.loss.resize(p.d_loss.count());
  r.lse.resize(in.N);
  r.sums.resize(2);
  r.d_hidden.resize(in.N * in.H);
  r.d_weight.resize(in.V * in.H);
  r.d_bias.resize(in.V);
  const kernels::Runtime runtime = kernels::default_runtime(0);
  const auto expect = [](const kernels::Status& status) {
    if (!status) throw std::runtime_error(status.message());
  };
  expect(kernels::cpu::cross_entropy_forward({in, r.loss.data(), r.lse.data(), r.sums.data()},
                                             runtime));
  CrossEntropyBackwardParams backward{in, r.lse.data(), r.sums.data(), p.d_loss.oracle()};
  backward.d_hidden = r.d_hidden.data();
  backward.d_weight = r.d_weight.data();
  backward.d_bias = r.d_bias.data();
  expect(kernels::cpu::cross_entropy_backward(backward, runtime));
  return r;
}

}  // namespace

BENCH_CASE(cross_entropy,
           "N=70 H=65 V=700 smoothing=10 (percent) reduction=mean|sum|none weighted=0 bias=1 "
           "ignored=20 (percent) wrong=0 (targets out of range) work=128M (bytes)") {
  const Problem p = problem(bench);
  const int64_t work = bench.args.size("work", int64_t{128} << 20);
  const CrossEntropyInputs in = p.inputs(false);
  const DType dtype = in.dtype, state = p.d_loss.dtype();
  const Array loss(state, p.d_loss.count()), lse(state, in.N), sums(state, 2);
  const Array d_hidden(dtype, in.N * in.H), d_weight(dtype, in.V * in.H), d_bias(dtype, in.V);

  const CrossEntropyForwardParams forward{in, loss.data(), lse.data(), sums.data()};
  CrossEntropyBackwardParams backward{in, lse.data(), sums.data(), p.d_loss.data()};
  backward.d_hidden = d_hidden.data();
  backward.d_weight = d_weight.data();
  backward.d_bias = p.has_bias ? d_bias.data() : nullptr;
  backward.work_bytes = work;
  const auto run = [&] {
    const kernels::Status status = kernels::cuda::cross_entropy_forward(forward, bench.runtime);
    return status ? kernels::cuda::cross_entropy_backward(backward, bench.runtime) : status;
  };
  bench.launch(run);

  const Results expected = oracle(p);
  // In float64 the oracle rounds as much.
  const double noise = dtype == DType::kFloat64 ? 32 : 4;
  bench.check("loss", loss, expected.loss, noise);
  bench.check("lse", lse, expected.lse, noise);
  bench.check("sums", sums, expected.sums, noise);
  // The logits' gradients are rounded, the products of them again.
  const double units = size_of(dtype) == 2 ? 1 : 2 * noise;
  bench.check("d_hidden", d_hidden, expected.d_hidden, units);
  bench.check("d_weight", d_weight, expected.d_weight, units);
  if (p.has_bias) bench.check("d_bias", d_bias, expected.d_bias, units);

  const std::vector<double> once = d_weight.download(), rows = d_hidden.download();
  bench.launch(run);
  bench.check("d_weight again", d_weight, once, 0);
  bench.check("d_hidden again", d_hidden, rows, 0);
  const double products = 2.0 * in.N * in.V * in.H;
  bench.time([&] { return kernels::cuda::cross_entropy_forward(forward, bench.runtime); },
             double(in.V + in.N) * in.H * size_of(dtype), products);
  bench.time([&] { return kernels::cuda::cross_entropy_backward(backward, bench.runtime); },
             2.0 * (in.V + in.N) * in.H * size_of(dtype), 3 * products);
}

}  // namespace seq2seq_ext::kernel_bench
