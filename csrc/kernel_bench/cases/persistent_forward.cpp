// SPDX-License-Identifier: MIT
// The persistent forward recurrence against three plain loops in float64, which round h to the
// dtype after each step as the kernel has to. What is left is the rounding of results (half a unit
// in the last place, a quarter or half of eps) and of float32 sums, which now and then moves h by a
// whole one; the gates hand that on, less than doubled with these weights.
#include "cases/persistent_problem.h"

namespace seq2seq_ext::kernel_bench {
namespace {

struct Results {
  std::vector<Array> x, h, c, saved_gates, saved_cells;  // by direction; h and c before and after
  Array y;
};

// One row and unit: h' and, for the LSTM, c' from the gate sums.
double cell(const RecurrentProblem& p, const double* x, const double* h_sum, double h, double& c,
            double* saved) {
  if (p.lstm()) {
    saved[0] = sigmoid(x[0] + h_sum[0]);
    saved[1] = sigmoid(x[1] + h_sum[1]);
    saved[2] = std::tanh(x[2] + h_sum[2]);
    saved[3] = sigmoid(x[3] + h_sum[3]);
    c = saved[1] * c + saved[0] * saved[2];
    return saved[3] * std::tanh(c);
  }
  if (p.gru()) {
    saved[0] = sigmoid(x[0] + h_sum[0]);
    saved[1] = sigmoid(x[1] + h_sum[1]);
    saved[2] = std::tanh(x[2] + saved[0] * h_sum[2]);
    saved[3] = h_sum[2];
    return (1 - saved[1]) * saved[2] + saved[1] * h;
  }
  const double sum = x[0] + h_sum[0];
  saved[0] = p.shape.cell == kernels::Cell::kRnnTanh ? std::tanh(sum) : std::max(sum, 0.0);
  return saved[0];
}

struct Expected {
  std::vector<double> y;
  std::vector<std::vector<double>> h, c, saved_gates, saved_cells;
};

Expected oracle(const RecurrentProblem& p, const Results& given) {
  Expected e;
  e.y.assign(p.T * p.B * p.D * p.H, 0);
  for (int64_t d = 0; d < p.D; ++d) {
    const auto& w = p.w_hh[d].values();
    const auto& x = given.x[d].values();
    auto h = given.h[d].values(), c = given.c[d].values();
    std::vector<double> gates(p.T * p.B * p.S * p.H, 0), cells(p.T * p.B * p.H, 0);
    for (int64_t step = 0; step < p.T; ++step) {
      const int64_t t = p.time(d, step);
      const auto h_prev = h;
      for (int64_t b = 0; b < p.B; ++b) {
        if (!p.active(b, t)) continue;
        for (int64_t j = 0; j < p.H; ++j) {
          double x_sum[4], h_sum[4], saved[4];
          for (int64_t g = 0; g < p.G; ++g) {
            const int64_t row = g * p.H + j;
            x_sum[g] = x[(t * p.B + b) * p.G * p.H + row] + p.bias_ih(d, row);
            h_sum[g] = p.bias_hh(d, row);
            for (int64_t k = 0; k < p.H; ++k) h_sum[g] += w[row * p.H + k] * h_prev[b * p.H + k];
          }
          const double h_next = cell(p, x_sum, h_sum, h_prev[b * p.H + j], c[b * p.H + j], saved);
          h[b * p.H + j] = rounded(p.shape.dtype, h_next);
          e.y[t * p.stride_t + b * p.stride_b + d * p.H + j] = h[b * p.H + j];
          for (int64_t s = 0; s < p.S; ++s) gates[((t * p.B + b) * p.S + s) * p.H + j] = saved[s];
          cells[(t * p.B + b) * p.H + j] = c[b * p.H + j];
        }
      }
    }
    e.h.push_back(h);
    e.c.push_back(c);
    e.saved_gates.push_back(gates);
    e.saved_cells.push_back(cells);
  }
  return e;
}

Results inputs(Bench& bench, const RecurrentProblem& p) {
  Results r{{}, {}, {}, {}, {}, Array(p.shape.dtype, p.T * p.B * p.D * p.H)};
  for (int64_t d = 0; d < p.D; ++d) {
    r.x.push_back(bench.normal(DType::kFloat32, p.T * p.B * p.G * p.H));
    r.h.push_back(bench.normal(p.shape.dtype, p.B * p.H, 0.5));
    r.c.push_back(bench.normal(DType::kFloat32, p.B * p.H));
    r.saved_gates.emplace_back(p.shape.dtype, p.T * p.B * p.S * p.H);
    r.saved_cells.emplace_back(DType::kFloat32, p.T * p.B * p.H);
  }
  return r;
}

kernels::Status forward(const RecurrentProblem& p, const Results& r, bool train,
                        const kernels::cuda::Plan& plan, const kernels::cuda::Runtime& runtime) {
  kernels::SequenceForwardParams params{};
  params.shape = p.shape;
  params.y = r.y.data();
  params.y_stride_t = p.stride_t;
  params.y_stride_b = p.stride_b;
  for (int64_t d = 0; d < p.D; ++d) {
    params.direction[d].weights = p.weights(d);
    if (!train) continue;
    params.direction[d].saved_gates = r.saved_gates[d].data();
    if (p.lstm()) params.direction[d].saved_cells = r.saved_cells[d].data();
  }
  for (int64_t i = 0; i < p.chunks; ++i) {
    kernels::cuda::ForwardChunk chunk{&params, p.begin(i), p.begin(i + 1), {}};
    for (int64_t d = 0; d < p.D; ++d) {
      // The chunk's times, in the order of t.
      const int64_t first = p.shape.reverse[d] ? p.T - chunk.end : chunk.begin;
      chunk.direction[d] = {static_cast<float*>(r.x[d].data()) + first * p.B * p.G * p.H,
                            r.h[d].data(), p.lstm() ? r.c[d].data() : nullptr};
    }
    const kernels::Status status = kernels::cuda::persistent_forward(chunk, plan, runtime);
    if (!status) return status;
  }
  return kernels::Status::ok();
}

// Only row b of the inputs; as if the batch had no other.
Results alone(const RecurrentProblem& p, const Results& all, int64_t b) {
  Results r{{}, {}, {}, {}, {}, Array(p.shape.dtype, p.T * p.D * p.H)};
  for (int64_t d = 0; d < p.D; ++d) {
    const auto &x = all.x[d], &h = all.h[d], &c = all.c[d];
    r.x.push_back(row_of(x, x.values(), p.B, b, p.G * p.H));
    r.h.push_back(row_of(h, h.values(), p.B, b, p.H));
    r.c.push_back(row_of(c, c.values(), p.B, b, p.H));
    r.saved_gates.emplace_back(p.shape.dtype, p.T * p.S * p.H);
    r.saved_cells.emplace_back(DType::kFloat32, p.T * p.H);
  }
  return r;
}

kernels::cuda::Plan plan_of(Bench& bench, const RecurrentProblem& p) {
  const auto& device = bench.runtime.device;
  return recut(bench, p,
               bench.args.flag("split")
                   ? kernels::cuda::persistent::shared_forward_plan(p.shape, device)
                   : kernels::cuda::plan_forward(p.shape, device));
}

}  // namespace

BENCH_CASE(persistent_forward, kPersistentUsage) {
  RecurrentProblem p(bench);
  const bool train = bench.args.flag("train", true);
  const kernels::cuda::Plan plan = plan_of(bench, p);
  const auto random = bench.random;
  const Results first = inputs(bench, p);
  const Expected expected = oracle(p, first);
  bench.launch([&] { return forward(p, first, train, plan, bench.runtime); });

  const DType dtype = p.shape.dtype;
  bench.check("y", first.y, expected.y, 2);
  for (int64_t d = 0; d < p.D; ++d) {
    bench.check("h", first.h[d], expected.h[d], 2);
    if (p.lstm()) bench.check("c", first.c[d].download(), expected.c[d], dtype, 2);
    if (!train) continue;
    bench.check("saved_gates", first.saved_gates[d], expected.saved_gates[d], 2);
    if (p.lstm()) {
      bench.check("saved_cells", first.saved_cells[d].download(), expected.saved_cells[d], dtype,
                  2);
    }
  }
  bench.time([&] { return forward(p, first, train, plan, bench.runtime); },
             double(p.D * p.T * p.B * p.H) * (4 * p.G + 2 + (train ? 2 * p.S + 4 : 0)),
             2.0 * p.D * p.T * p.B * p.G * p.H * p.H);
  if (!bench.args.flag("repeat", true)) return;
  bench.random = random;
  const Results second = inputs(bench, p);
  p.chunks = 1;
  bench.launch([&] { return forward(p, second, train, plan, bench.runtime); });
  bench.check_true("same bits again, in one chunk",
                   same(first.y, second.y) && same(first.h, second.h) && same(first.c, second.c));
  const int64_t b = p.B / 2;
  const Results row = alone(p, first, b);
  const std::vector<double> y = first.y.download();
  std::vector<double> expected_row;
  for (int64_t t = 0; t < p.T; ++t) {
    const auto from = y.begin() + t * p.stride_t + b * p.stride_b;
    expected_row.insert(expected_row.end(), from, from + p.D * p.H);
  }
  p.keep_row(b);
  const kernels::cuda::Plan row_plan = plan_of(bench, p);
  bench.launch([&] { return forward(p, row, train, row_plan, bench.runtime); });
  bench.check_true("same bits for a row alone", row.y.download() == expected_row);
}

}  // namespace seq2seq_ext::kernel_bench
