// SPDX-License-Identifier: MIT
// The persistent backward recurrence against three plain loops in float64. What the forward would
// have saved is made up, within the gates' ranges, so that a mistake of the forward cannot hide
// here. The loops round gate gradients to the dtype, as the kernel has to before it multiplies
// them: what is left is that rounding falling now and then to the other side (a unit in the last
// place, half of eps or less), which W_hh hands on, less than doubled with these weights.
#include "cases/persistent_problem.h"

namespace seq2seq_ext::kernel_bench {
namespace {

struct Tensors {
  std::vector<Array> saved_gates, saved_cells, h0, c0;  // by direction
  std::vector<Array> d_gates, dh, dc;                   // dh and dc before and after
  Array y, dy;
};

Array mapped(Bench& bench, DType dtype, int64_t count, double (*f)(double)) {
  std::vector<double> values = bench.normal(DType::kFloat64, count).values();
  for (double& value : values) value = f(value);
  return Array(dtype, std::move(values));
}

Tensors inputs(Bench& bench, const RecurrentProblem& p) {
  const DType dtype = p.shape.dtype;
  const int64_t rows = p.T * p.B, states = p.B * p.H;
  const auto tanh = [](double x) { return std::tanh(x); };
  Tensors t{{},
            {},
            {},
            {},
            {},
            {},
            {},
            mapped(bench, dtype, rows * p.D * p.H, tanh),
            bench.normal(dtype, rows * p.D * p.H)};
  for (int64_t d = 0; d < p.D; ++d) {
    std::vector<double> gates(rows * p.S * p.H);
    for (int64_t i = 0; i < rows * p.S * p.H; ++i) {
      const int64_t slot = i / p.H % p.S;
      const double x = bench.normal(DType::kFloat64, 1).values()[0];
      const bool squashed = p.lstm() ? slot == 2 : p.gru() ? slot == 2 : true;
      gates[i] = p.gru() && slot == 3 ? x : squashed ? std::tanh(x) : sigmoid(x);
    }
    t.saved_gates.emplace_back(dtype, std::move(gates));
    t.saved_cells.push_back(bench.normal(DType::kFloat32, rows * p.H));
    t.h0.push_back(mapped(bench, dtype, states, tanh));
    t.c0.push_back(bench.normal(DType::kFloat32, states));
    t.d_gates.emplace_back(dtype, rows * p.S * p.H);
    t.dh.push_back(bench.normal(DType::kFloat32, states));
    t.dc.push_back(bench.normal(DType::kFloat32, states));
  }
  return t;
}

// One row and unit: the gate gradients; dc and `through`, what of dh bypasses W_hh.
void cell(const RecurrentProblem& p, double dh, const double* s, double c, double c_prev,
          double h_prev, double& dc, double& through, double* d) {
  through = 0;
  if (p.lstm()) {
    const double i = s[0], f = s[1], g = s[2], o = s[3];
    dc += dh * o * (1 - std::tanh(c) * std::tanh(c));
    d[0] = dc * g * i * (1 - i);
    d[1] = dc * c_prev * f * (1 - f);
    d[2] = dc * i * (1 - g * g);
    d[3] = dh * std::tanh(c) * o * (1 - o);
    dc *= f;
  } else if (p.gru()) {
    const double r = s[0], z = s[1], n = s[2], hidden = s[3];
    d[0] = dh * (1 - z) * (1 - n * n);
    d[1] = d[0] * hidden * r * (1 - r);
    d[2] = dh * (h_prev - n) * z * (1 - z);
    d[3] = d[0] * r;
    through = dh * z;
  } else if (p.shape.cell == kernels::Cell::kRnnTanh) {
    d[0] = dh * (1 - s[0] * s[0]);
  } else {
    d[0] = s[0] > 0 ? dh : 0;
  }
}

struct Expected {
  std::vector<std::vector<double>> d_gates, dh, dc;
};

Expected oracle(const RecurrentProblem& p, const Tensors& given, bool has_dy) {
  Expected e;
  const int64_t BH = p.B * p.H, hidden = p.S - p.G;
  for (int64_t d = 0; d < p.D; ++d) {
    const auto& w = p.w_hh[d].values();
    auto dh = given.dh[d].values(), dc = given.dc[d].values();
    std::vector<double> d_gates(p.T * BH * p.S, 0);
    for (int64_t step = p.T - 1; step >= 0; --step) {
      const int64_t t = p.time(d, step), t_prev = p.shape.reverse[d] ? t + 1 : t - 1;
      for (int64_t b = 0; b < p.B; ++b) {
        if (!p.active(b, t)) continue;
        const bool has_prev = p.shape.reverse[d] ? p.active(b, t_prev) : t_prev >= 0;
        double* const to = &d_gates[(t * p.B + b) * p.S * p.H];
        for (int64_t j = 0; j < p.H; ++j) {
          const int64_t at = b * p.H + j, y_at = b * p.stride_b + d * p.H + j;
          double saved[4], gradient[4];
          for (int64_t s = 0; s < p.S; ++s) {
            saved[s] = given.saved_gates[d].values()[((t * p.B + b) * p.S + s) * p.H + j];
          }
          const auto& cells = given.saved_cells[d].values();
          const double c_prev = has_prev ? cells[t_prev * BH + at] : given.c0[d].values()[at];
          const double h_prev =
              has_prev ? given.y.values()[t_prev * p.stride_t + y_at] : given.h0[d].values()[at];
          if (has_dy) dh[at] += given.dy.values()[t * p.stride_t + y_at];
          cell(p, dh[at], saved, cells[t * BH + at], c_prev, h_prev, dc[at], dh[at], gradient);
          for (int64_t s = 0; s < p.S; ++s) {
            to[s * p.H + j] = rounded(p.shape.dtype, gradient[s]);
          }
        }
        for (int64_t row = 0; row < p.G * p.H; ++row) {
          for (int64_t k = 0; k < p.H; ++k) {
            dh[b * p.H + k] += to[hidden * p.H + row] * w[row * p.H + k];
          }
        }
      }
    }
    e.d_gates.push_back(d_gates);
    e.dh.push_back(dh);
    e.dc.push_back(dc);
  }
  return e;
}

kernels::Status backward(const RecurrentProblem& p, const Tensors& r, bool has_dy,
                         const kernels::cuda::Plan& plan, const kernels::cuda::Runtime& runtime) {
  kernels::SequenceBackwardParams params{};
  params.shape = p.shape;
  params.y = r.y.data();
  params.dy = has_dy ? r.dy.data() : nullptr;
  params.y_stride_t = params.dy_stride_t = p.stride_t;
  params.y_stride_b = params.dy_stride_b = p.stride_b;
  for (int64_t d = 0; d < p.D; ++d) {
    params.direction[d].weights = p.weights(d);
    params.direction[d].h0 = r.h0[d].data();
    params.direction[d].saved_gates = r.saved_gates[d].data();
    if (!p.lstm()) continue;
    params.direction[d].c0 = r.c0[d].data();
    params.direction[d].saved_cells = r.saved_cells[d].data();
  }
  for (int64_t i = p.chunks - 1; i >= 0; --i) {
    kernels::cuda::BackwardChunk chunk{&params, p.begin(i), p.begin(i + 1), {}};
    for (int64_t d = 0; d < p.D; ++d) {
      chunk.direction[d].d_gates = r.d_gates[d].data();
      chunk.direction[d].dh = r.dh[d].data();
      if (p.lstm()) chunk.direction[d].dc = r.dc[d].data();
    }
    const kernels::Status status = kernels::cuda::persistent_backward(chunk, plan, runtime);
    if (!status) return status;
  }
  return kernels::Status::ok();
}

}  // namespace

BENCH_CASE(persistent_backward, kPersistentUsage) {
  RecurrentProblem p(bench);
  const bool has_dy = bench.args.flag("dy", true);
  const kernels::cuda::Plan plan =
      recut(bench, p,
            bench.args.flag("split")
                ? kernels::cuda::persistent::shared_backward_plan(p.shape, bench.runtime.device)
                : kernels::cuda::plan_backward(p.shape, bench.runtime.device));
  const auto random = bench.random;
  const Tensors first = inputs(bench, p);
  const Expected expected = oracle(p, first, has_dy);
  bench.launch([&] { return backward(p, first, has_dy, plan, bench.runtime); });

  for (int64_t d = 0; d < p.D; ++d) {
    bench.check("d_gates", first.d_gates[d], expected.d_gates[d], 1);
    bench.check("dh", first.dh[d].download(), expected.dh[d], p.shape.dtype, 1);
    if (p.lstm()) bench.check("dc", first.dc[d].download(), expected.dc[d], p.shape.dtype, 1);
  }
  bench.time([&] { return backward(p, first, has_dy, plan, bench.runtime); },
             double(p.D * p.T * p.B * p.H) * (4 * p.S + 2 + (p.lstm() ? 8 : 0)),
             2.0 * p.D * p.T * p.B * p.G * p.H * p.H);
  if (!bench.args.flag("repeat", true)) return;
  bench.random = random;
  const Tensors second = inputs(bench, p);
  p.chunks = 1;
  bench.launch([&] { return backward(p, second, has_dy, plan, bench.runtime); });
  bench.check_true("same bits again, in one chunk", same(first.d_gates, second.d_gates) &&
                                                        same(first.dh, second.dh) &&
                                                        same(first.dc, second.dc));
}

}  // namespace seq2seq_ext::kernel_bench
