// SPDX-License-Identifier: MIT
#include <algorithm>

#include "sequence.h"

namespace seq2seq_ext::kernel_bench {

using namespace sequence;

namespace {

struct BackwardResults {
  Output dx;
  struct Direction {
    Output dh0, dc0, w_ih, w_hh, b_ih, b_hh, w_hr;
  };
  std::vector<Direction> directions;

  explicit BackwardResults(const Problem& p)
      : dx(p.shape.dtype, p.shape.T * p.shape.B * p.shape.I) {
    const SequenceShape& s = p.shape;
    const int64_t rows = num_gates(s.cell) * s.H;
    const auto of = [&](int64_t count) { return Output(s.dtype, count); };
    for (int d = 0; d < s.directions; ++d) {
      directions.push_back({of(s.B * s.P), Output(state_type(s.dtype), p.lstm() ? s.B * s.H : 0),
                            of(rows * s.I), of(rows * s.P), of(p.bias ? rows : 0),
                            of(p.bias ? rows : 0), of(p.projection() ? s.P * s.H : 0)});
    }
  }

  // Calls use(name, output) for each.
  template <class Use>
  void each(const Use& use) {
    use("dx", dx);
    for (size_t d = 0; d < directions.size(); ++d) {
      const std::string n = " " + std::to_string(d);
      Direction& of = directions[d];
      use("dh0" + n, of.dh0), use("dc0" + n, of.dc0), use("dw_ih" + n, of.w_ih);
      use("dw_hh" + n, of.w_hh), use("db_ih" + n, of.b_ih), use("db_hh" + n, of.b_hh);
      use("dw_hr" + n, of.w_hr);
    }
  }
};

// Gradients of the outputs, some of them null.
struct Cotangents {
  std::unique_ptr<Array> dy;
  std::vector<Array> dh_n, dc_n;
  bool states;

  Cotangents(Problem& p, bool with_dy, bool with_states) : states(with_states) {
    const SequenceShape& s = p.shape;
    if (with_dy) dy = p.sequence(p.output_width(), 1.0);
    for (int d = 0; d < s.directions; ++d) {
      dh_n.push_back(p.bench.normal(s.dtype, s.B * s.P));
      dc_n.push_back(p.bench.normal(state_type(s.dtype), s.B * s.H));
    }
  }
};

SequenceBackwardParams backward_params(const Problem& p, const Cotangents& cotangents,
                                       ForwardResults& f, BackwardResults& r,
                                       const std::string& want, bool oracle) {
  const auto input = [oracle](const Array& a) -> const void* {
    return oracle ? static_cast<const void*>(a.oracle()) : a.data();
  };
  // want: "all", or words separated by commas of dx, dh0, dc0, w_ih, w_hh, b_ih, b_hh, w_hr.
  const auto output = [&](const char* name, Output& o) -> void* {
    const bool wanted = want == "all" ||
                        ("," + want + ",").find("," + std::string(name) + ",") != std::string::npos;
    return wanted && !o.exact.empty() ? o.pointer(oracle) : nullptr;
  };
  SequenceBackwardParams b{};
  const SequenceForwardParams forward = forward_params(p, f, true, oracle);
  b.shape = forward.shape;
  b.x = forward.x, b.x_stride_t = forward.x_stride_t, b.x_stride_b = forward.x_stride_b;
  b.y = forward.y, b.y_stride_t = forward.y_stride_t, b.y_stride_b = forward.y_stride_b;
  if (cotangents.dy != nullptr) {
    b.dy = input(*cotangents.dy);
    b.dy_stride_t = b.y_stride_t, b.dy_stride_b = b.y_stride_b;
  }
  b.dx = output("dx", r.dx);
  for (int d = 0; d < p.shape.directions; ++d) {
    const auto& from = forward.direction[d];
    auto& to = b.direction[d];
    auto& grads = r.directions[d];
    to.weights = from.weights;
    to.h0 = from.h0, to.c0 = from.c0;
    to.saved_gates = from.saved_gates, to.saved_cells = from.saved_cells;
    if (cotangents.states) {
      to.dh_n = input(cotangents.dh_n[d]);
      if (p.lstm()) to.dc_n = input(cotangents.dc_n[d]);
    }
    to.dh0 = output("dh0", grads.dh0);
    to.dc0 = output("dc0", grads.dc0);
    to.grads = {output("w_ih", grads.w_ih), output("w_hh", grads.w_hh), output("b_ih", grads.b_ih),
                output("b_hh", grads.b_hh), output("w_hr", grads.w_hr)};
  }
  return b;
}

}  // namespace

BENCH_CASE(sequence_backward,
           "as sequence_forward, without save; dy=1 states=1 want=all|dx,dh0,dc0,w_ih,w_hh,b_ih,"
           "b_hh,w_hr") {
  Problem p(bench);
  const SequenceShape& s = p.shape;
  const std::string want = bench.args.text("want", "all");
  const bool with_dy = bench.args.flag("dy", true), with_states = bench.args.flag("states", true);
  const Cotangents cotangents(p, with_dy, with_states);
  p.check_path(plan_backward(p.shape_for(false), bench.runtime.device));
  ForwardResults f(p);
  BackwardResults r(p), again(p);
  run_forward(p, f, true);
  run_forward_oracle(p, f, true);
  const auto params = backward_params(p, cotangents, f, r, want, false);
  bench.launch([&] { return kernels::cuda::sequence_backward(params, bench.runtime); });
  const auto status = kernels::cpu::sequence_backward(
      backward_params(p, cotangents, f, r, want, true), kernels::default_runtime(1));
  if (!status) throw std::runtime_error(status.message());
  // Sums over all T*B entries are made of shorter ones.
  const int64_t terms = s.I + s.P + num_gates(s.cell) * s.H + std::min<int64_t>(s.T * s.B, 256);
  const double units = allowed(s, 8, terms);
  r.each([&](const std::string& name, Output& output) {
    if (output.exact.empty()) return;
    const double scale = epsilon(s.dtype) / epsilon(output.device.dtype());
    bench.check(name, output.device, output.exact, units * scale);
  });

  const auto repeat = backward_params(p, cotangents, f, again, want, false);
  bench.launch([&] { return kernels::cuda::sequence_backward(repeat, bench.runtime); });
  std::vector<double> first, second;
  r.each([&](const std::string&, Output& o) {
    for (double value : o.device.download()) first.push_back(value);
  });
  again.each([&](const std::string&, Output& o) {
    for (double value : o.device.download()) second.push_back(value);
  });
  bench.check("again", second, first, s.dtype, 0);
  bench.time([&] { return kernels::cuda::sequence_backward(params, bench.runtime); },
             double(s.T * s.B * num_saved(s.cell) * s.H * 2 * kernels::size_of(s.dtype)),
             2 * work(s, s.I));
}

}  // namespace seq2seq_ext::kernel_bench
