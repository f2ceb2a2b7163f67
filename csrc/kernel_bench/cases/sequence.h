// SPDX-License-Identifier: MIT
// What the cases of the sequence kernels share: the problem, and the forward on both sides: the
// device's and the oracle's, the CPU kernel in float64. What lies past a row's length is NaN in x
// and dy, and what lies between the rows of y must stay as it was.
#pragma once

#include <cmath>
#include <limits>
#include <stdexcept>

#include "bench.h"
#include "cpu/launch.h"
#include "cuda/launch.h"
#include "cuda/recurrence.h"

namespace seq2seq_ext::kernel_bench::sequence {

using kernels::Cell;
using kernels::RecurrentWeights;
using kernels::SequenceBackwardParams;
using kernels::SequenceForwardParams;
using kernels::SequenceShape;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// How a (T, B, W) array lies in memory.
struct Layout {
  int64_t T, B, W, stride_t, stride_b;
  int64_t count() const { return (T - 1) * stride_t + (B - 1) * stride_b + W; }
  Layout(const std::string& name, int64_t T_, int64_t B_, int64_t W_) : T(T_), B(B_), W(W_) {
    stride_b = W, stride_t = B * W;
    if (name == "batch_first") {
      stride_t = W, stride_b = T * W;
    } else if (name == "padded") {
      stride_b = W + 3, stride_t = B * stride_b + 5;
    } else if (name != "dense") {
      throw std::invalid_argument("layout: expected dense, batch_first or padded, got " + name);
    }
  }
};

// Pointers of one direction, on the device and of the oracle.
struct DirectionArrays {
  Array w_ih, w_hh, b_ih, b_hh, w_hr, h0, c0;

  RecurrentWeights weights(bool bias, bool projection, bool oracle) const {
    const auto pointer = [oracle](const Array& a) -> const void* {
      return oracle ? static_cast<const void*>(a.oracle()) : a.data();
    };
    RecurrentWeights w;
    w.w_ih = pointer(w_ih);
    w.w_hh = pointer(w_hh);
    if (bias) w.b_ih = pointer(b_ih), w.b_hh = pointer(b_hh);
    if (projection) w.w_hr = pointer(w_hr);
    return w;
  }
};

inline Cell cell_of(const std::string& name) {
  if (name == "lstm") return Cell::kLstm;
  if (name == "gru") return Cell::kGru;
  if (name == "tanh") return Cell::kRnnTanh;
  if (name == "relu") return Cell::kRnnRelu;
  throw std::invalid_argument("cell: expected lstm, gru, tanh or relu, got " + name);
}

inline DType state_type(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

struct Problem {
  Bench& bench;
  SequenceShape shape{};
  std::string layout, path;
  bool bias;
  std::vector<int64_t> lengths;
  std::unique_ptr<Integers<int64_t>> device_lengths;
  std::unique_ptr<Array> x;
  std::vector<DirectionArrays> directions;

  explicit Problem(Bench& b) : bench(b) {
    Arguments& args = bench.args;
    SequenceShape& s = shape;
    s.cell = cell_of(args.text("cell", "lstm"));
    s.dtype = args.dtype();
    s.T = args.size("T", 5), s.B = args.size("B", 3);
    s.I = args.size("I", 7), s.H = args.size("H", 9);
    s.P = args.size("P", s.H);
    s.directions = static_cast<int>(args.size("D", 1));
    s.reverse[0] = args.flag("reverse");
    s.reverse[1] = true;
    bias = args.flag("bias", true);
    layout = args.text("layout", "dense");
    path = args.text("path", "any");
    set_lengths(args.text("lengths", "none"));
    x = sequence(s.I, 1.0);
    for (int d = 0; d < s.directions; ++d) directions.push_back(direction());
  }

  bool projection() const { return shape.P != shape.H; }
  bool lstm() const { return shape.cell == Cell::kLstm; }
  int64_t output_width() const { return shape.directions * shape.P; }
  Layout layout_of(int64_t width) const { return Layout(layout, shape.T, shape.B, width); }

  void set_lengths(const std::string& kind) {
    if (kind == "none") return;
    const int64_t low = kind == "full" ? shape.T : kind == "ragged" ? 1 : 0;
    if (low == 0 && kind != "zeros") {
      throw std::invalid_argument("lengths: expected none, full, ragged or zeros, got " + kind);
    }
    std::uniform_int_distribution<int64_t> any(low, shape.T);
    for (int64_t b = 0; b < shape.B; ++b) lengths.push_back(any(bench.random));
    if (low == 0) lengths[0] = 0;
    std::vector<int64_t> given = lengths;  // the device clamps
    if (low == 0) given[0] = -3;
    if (given.back() == shape.T) given.back() = shape.T + 100;
    device_lengths = std::make_unique<Integers<int64_t>>(given);
  }

  // A (T, B, width) array in the chosen layout, NaN where nothing may be read.
  std::unique_ptr<Array> sequence(int64_t width, double scale) {
    const Layout l = layout_of(width);
    std::normal_distribution<double> normal(0.0, scale);
    std::vector<double> values(l.count(), kNaN);
    for (int64_t t = 0; t < l.T; ++t) {
      for (int64_t b = 0; b < l.B; ++b) {
        if (!lengths.empty() && t >= lengths[b]) continue;
        for (int64_t w = 0; w < width; ++w) {
          values[t * l.stride_t + b * l.stride_b + w] = normal(bench.random);
        }
      }
    }
    return std::make_unique<Array>(shape.dtype, std::move(values));
  }

  DirectionArrays direction() {
    const SequenceShape& s = shape;
    const int64_t rows = num_gates(s.cell) * s.H;
    const bool relu = s.cell == Cell::kRnnRelu, narrow = kernels::size_of(s.dtype) == 2;
    // torch.nn's own initialisation; less for relu, whose state would grow without bound.
    const double scale = std::pow(double(s.H), -0.5) * (relu ? 0.2 : 1.0);
    std::vector<double> b_ih = bench.normal(s.dtype, rows, scale).values();
    if (relu && narrow) {
      // Every unit well on one side of relu's corner: rounding must not move it across.
      for (double& value : b_ih) value = value < 0 ? -6 : 6;
    }
    return {bench.normal(s.dtype, rows * s.I, scale),
            bench.normal(s.dtype, rows * s.P, scale),
            Array(s.dtype, b_ih),
            bench.normal(s.dtype, rows, scale),
            bench.normal(s.dtype, s.P * s.H, scale),
            bench.normal(s.dtype, s.B * s.P, 0.5),
            bench.normal(state_type(s.dtype), s.B * s.H, 0.5)};
  }

  SequenceShape shape_for(bool oracle) const {
    SequenceShape s = shape;
    if (oracle) s.dtype = DType::kFloat64;
    if (!lengths.empty()) s.lengths = oracle ? lengths.data() : device_lengths->data();
    return s;
  }

  void check_path(const kernels::cuda::Plan& plan) const {
    if (path != "any") {
      bench.check_true("path: " + std::string(plan.persistent ? "persistent " : "stepwise ") +
                           (plan.reason != nullptr ? plan.reason : ""),
                       path == (plan.persistent ? "persistent" : "stepwise"));
    }
  }
};

// An output on the device and the oracle's.
struct Output {
  Array device;
  std::vector<double> exact;
  Output(DType dtype, int64_t count) : device(dtype, count), exact(count, kNaN) {}
  void* pointer(bool oracle) { return oracle ? static_cast<void*>(exact.data()) : device.data(); }
};

struct ForwardResults {
  Output y;
  std::vector<Output> h_n, c_n, gates, cells;

  explicit ForwardResults(const Problem& p)
      : y(p.shape.dtype, p.layout_of(p.output_width()).count()) {
    const SequenceShape& s = p.shape;
    for (int d = 0; d < s.directions; ++d) {
      h_n.emplace_back(s.dtype, s.B * s.P);
      c_n.emplace_back(state_type(s.dtype), p.lstm() ? s.B * s.H : 0);
      gates.emplace_back(s.dtype, s.T * s.B * num_saved(s.cell) * s.H);
      cells.emplace_back(state_type(s.dtype), p.lstm() ? s.T * s.B * s.H : 0);
    }
  }
};

inline SequenceForwardParams forward_params(const Problem& p, ForwardResults& r, bool save,
                                            bool oracle) {
  SequenceForwardParams f{};
  const Layout x = p.layout_of(p.shape.I), y = p.layout_of(p.output_width());
  f.shape = p.shape_for(oracle);
  f.x = oracle ? static_cast<const void*>(p.x->oracle()) : p.x->data();
  f.x_stride_t = x.stride_t, f.x_stride_b = x.stride_b;
  f.y = r.y.pointer(oracle);
  f.y_stride_t = y.stride_t, f.y_stride_b = y.stride_b;
  for (int d = 0; d < p.shape.directions; ++d) {
    const DirectionArrays& from = p.directions[d];
    auto& to = f.direction[d];
    to.weights = from.weights(p.bias, p.projection(), oracle);
    to.h0 = oracle ? static_cast<const void*>(from.h0.oracle()) : from.h0.data();
    to.h_n = r.h_n[d].pointer(oracle);
    if (save) to.saved_gates = r.gates[d].pointer(oracle);
    if (!p.lstm()) continue;
    to.c0 = oracle ? static_cast<const void*>(from.c0.oracle()) : from.c0.data();
    to.c_n = r.c_n[d].pointer(oracle);
    if (save) to.saved_cells = r.cells[d].pointer(oracle);
  }
  return f;
}

inline void run_forward(Problem& p, ForwardResults& r, bool save) {
  const SequenceForwardParams params = forward_params(p, r, save, false);
  p.bench.launch([&] { return kernels::cuda::sequence_forward(params, p.bench.runtime); });
}

inline void run_forward_oracle(const Problem& p, ForwardResults& r, bool save) {
  const auto params = forward_params(p, r, save, true);
  const auto status = kernels::cpu::sequence_forward(params, kernels::default_runtime(1));
  if (!status) throw std::runtime_error(status.message());
}

// Allowed error, in units of epsilon. A few roundings: a result's own and those of the states that
// led to it (backward: and of what is saved of them). Where a product's sum is as wide as its
// operands, it adds a random walk of as many roundings as it has terms; in float64 so does the
// oracle.
inline double allowed(const SequenceShape& s, double roundings, int64_t terms) {
  const double walk = 0.5 * std::sqrt(double(terms));
  const int64_t size = kernels::size_of(s.dtype);
  return size == 2 ? roundings : size == 4 ? roundings + walk : 2 * (roundings + walk);
}

inline double work(const SequenceShape& s, int64_t inputs) {
  return 2.0 * s.directions * s.T * s.B * kernels::num_gates(s.cell) * s.H * double(inputs + s.P);
}

}  // namespace seq2seq_ext::kernel_bench::sequence
