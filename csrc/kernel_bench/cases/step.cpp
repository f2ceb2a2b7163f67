// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "bench.h"
#include "common/params.h"
#include "cpu/launch.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernel_bench {
namespace {

using kernels::Cell;
using kernels::StepParams;

Cell cell_named(const std::string& name) {
  if (name == "lstm") return Cell::kLstm;
  if (name == "gru") return Cell::kGru;
  if (name == "tanh") return Cell::kRnnTanh;
  if (name == "relu") return Cell::kRnnRelu;
  throw std::invalid_argument("cell: expected lstm, gru, tanh or relu, got " + name);
}

DType state_type(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// The tensors of one step. x's rows lie `gap` elements further apart than they are long.
struct StepProblem {
  Cell cell;
  DType dtype;
  int64_t B, I, H, P, gap;
  bool bias, projection;
  Array w_ih, w_hh, b_ih, b_hh, w_hr, x, h, c;

  StepProblem(Bench& bench, Cell cell, DType dtype, int64_t B, int64_t I, int64_t H, int64_t P,
              int64_t gap, bool bias)
      : cell(cell),
        dtype(dtype),
        B(B),
        I(I),
        H(H),
        P(P),
        gap(gap),
        bias(bias),
        projection(cell == Cell::kLstm && P != H),
        w_ih(weights(bench, kernels::num_gates(cell) * H * I)),
        w_hh(weights(bench, kernels::num_gates(cell) * H * P)),
        b_ih(weights(bench, kernels::num_gates(cell) * H)),
        b_hh(weights(bench, kernels::num_gates(cell) * H)),
        w_hr(weights(bench, P * H)),
        x(bench.normal(dtype, B * (I + gap))),
        h(bench.normal(dtype, B * P, 0.5)),
        c(bench.normal(state_type(dtype), B * H, 0.5)) {}

  Array weights(Bench& bench, int64_t count) const {
    return bench.normal(dtype, count, 0.6 / std::sqrt(double(std::max<int64_t>(H, 1))));
  }

  // Rows [first, first + count) of the step; `data` gives an Array's memory: the device's, or the
  // values in float64.
  template <class Data>
  StepParams params(DType type, int64_t first, int64_t count, const Data& data) const {
    const int64_t size = kernels::size_of(type), state = kernels::size_of(state_type(type));
    const auto rows = [&](const Array& array, int64_t stride, int64_t bytes) {
      return static_cast<const char*>(static_cast<const void*>(data(array))) +
             first * stride * bytes;
    };
    StepParams p{};
    p.cell = cell;
    p.dtype = type;
    p.B = count;
    p.I = I;
    p.H = H;
    p.P = P;
    p.weights.w_ih = data(w_ih);
    p.weights.w_hh = data(w_hh);
    if (bias) p.weights.b_ih = data(b_ih), p.weights.b_hh = data(b_hh);
    if (projection) p.weights.w_hr = data(w_hr);
    p.x = rows(x, I + gap, size);
    p.x_stride_b = I + gap;
    p.h = rows(h, P, size);
    if (cell == Cell::kLstm) p.c = rows(c, H, state);
    return p;
  }

  StepParams device_params(int64_t first, int64_t count) const {
    return params(dtype, first, count, [](const Array& array) { return array.data(); });
  }
};

// Any group of rows gives the bits that the whole batch gave.
void check_batch_invariance(Bench& bench, const StepProblem& s, const std::vector<double>& h,
                            const std::vector<double>& c) {
  bool same = true;
  for (const int64_t count : {1, 3, 12, 20, 40, 70}) {
    if (count >= s.B) break;
    const int64_t first = (s.B - count) / 2;
    const Array h_out(s.dtype, count * s.P), c_out(state_type(s.dtype), count * s.H);
    StepParams p = s.device_params(first, count);
    p.h_out = h_out.data();
    if (s.cell == Cell::kLstm) p.c_out = c_out.data();
    bench.launch([&] { return kernels::cuda::step(p, bench.runtime); });
    const std::vector<double> h_part = h_out.download(), c_part = c_out.download();
    same &= std::equal(h_part.begin(), h_part.end(), h.begin() + first * s.P);
    if (s.cell == Cell::kLstm)
      same &= std::equal(c_part.begin(), c_part.end(), c.begin() + first * s.H);
  }
  bench.check_true("rows alone and in the batch", same);
}

}  // namespace

BENCH_CASE(step, "cell=lstm B=5 I=40 H=33 P=H gap=0 bias=1 alias=0 invariance=1") {
  Arguments& args = bench.args;
  const Cell cell = cell_named(args.text("cell", "lstm"));
  const DType dtype = args.dtype();
  const int64_t B = args.size("B", 5), I = args.size("I", 40), H = args.size("H", 33);
  const StepProblem s(bench, cell, dtype, B, I, H, args.size("P", H), args.size("gap", 0),
                      args.flag("bias", true));
  const bool lstm = cell == Cell::kLstm;

  StepParams oracle =
      s.params(DType::kFloat64, 0, B, [](const Array& array) { return array.oracle(); });
  std::vector<double> h(B * s.P), c(lstm ? B * H : 0);
  oracle.h_out = h.data();
  oracle.c_out = c.data();
  const kernels::Status status = kernels::cpu::step(oracle, kernels::default_runtime(1));
  if (!status) throw std::runtime_error(status.message());

  const Array h_out(dtype, B * s.P), c_out(state_type(dtype), B * H);
  StepParams p = s.device_params(0, B);
  p.h_out = h_out.data();
  const bool alias = args.flag("alias") && lstm;
  if (lstm) p.c_out = alias ? s.c.data() : c_out.data();
  bench.launch([&] { return kernels::cuda::step(p, bench.runtime); });
  // float64: the oracle rounds as much as the kernel.
  const double state_units = dtype == DType::kFloat64 ? 16 : 8;
  const double units = kernels::size_of(dtype) == 2 ? 1 : state_units;
  bench.check("h", h_out, h, units);
  if (lstm) bench.check("c", alias ? s.c : c_out, c, state_units);
  if (args.flag("invariance", true) && !alias && B > 1) {
    check_batch_invariance(bench, s, h_out.download(), c_out.download());
  }

  const double weights = double(kernels::num_gates(cell)) * H * (I + s.P);
  bench.time([&] { return kernels::cuda::step(p, bench.runtime); },
             (weights + double(B) * (I + 2 * s.P)) * kernels::size_of(dtype), 2.0 * B * weights);
}

}  // namespace seq2seq_ext::kernel_bench
