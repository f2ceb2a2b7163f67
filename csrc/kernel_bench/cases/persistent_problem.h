// SPDX-License-Identifier: MIT
// One recurrence for the cases persistent_forward and persistent_backward: its shape, its weights,
// and how it is cut.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "bench.h"
#include "cuda/plan.h"

namespace seq2seq_ext::kernel_bench {

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// To the nearest value of a 16-bit dtype, as the state h is kept.
inline double rounded(DType dtype, double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int bits = dtype == DType::kBFloat16 ? 8 : 11;
  const int smallest = dtype == DType::kBFloat16 ? -126 : -14;
  const int exponent = std::max(std::ilogb(x), smallest) - bits + 1;
  return std::ldexp(std::nearbyint(std::ldexp(x, -exponent)), exponent);
}

constexpr const char* kPersistentUsage =
    "cell=lstm|gru|tanh|relu T=5 B=3 H=40 D=1 reverse=0 lengths=all|ragged|zero chunks=1 bias=1 "
    "batch_first=0 split=0 resident=- shared_bytes=- repeat=1 (again, in one chunk, the same bits; "
    "the "
    "same for a row alone)";

struct RecurrentProblem {
  kernels::SequenceShape shape{};
  int64_t T, B, H, G, S, D;
  std::vector<int64_t> lengths;
  std::unique_ptr<Integers<int64_t>> device_lengths;
  std::vector<Array> w_hh, b_ih, b_hh;  // by direction
  int64_t chunks, stride_t, stride_b;   // of y
  bool bias, batch_first;

  explicit RecurrentProblem(Bench& bench) {
    auto& args = bench.args;
    const std::string cell = args.text("cell", "lstm");
    if (cell == "lstm") {
      shape.cell = kernels::Cell::kLstm;
    } else if (cell == "gru") {
      shape.cell = kernels::Cell::kGru;
    } else if (cell == "tanh") {
      shape.cell = kernels::Cell::kRnnTanh;
    } else if (cell == "relu") {
      shape.cell = kernels::Cell::kRnnRelu;
    } else {
      throw std::invalid_argument("cell: expected lstm, gru, tanh or relu, got " + cell);
    }
    shape.dtype = args.dtype(DType::kBFloat16);
    T = shape.T = args.size("T", 5);
    B = shape.B = args.size("B", 3);
    H = shape.H = shape.P = shape.I = args.size("H", 40);
    D = shape.directions = int(args.size("D", 1));
    shape.reverse[0] = args.flag("reverse");
    shape.reverse[1] = !shape.reverse[0];
    G = kernels::num_gates(shape.cell);
    S = kernels::num_saved(shape.cell);
    chunks = args.size("chunks", 1);
    bias = args.flag("bias", true);
    batch_first = args.flag("batch_first");
    set_strides();

    const std::string kind = args.text("lengths", "all");
    lengths.assign(B, kind == "zero" ? 0 : T);
    if (kind == "ragged") {
      for (int64_t b = 0; b < B; ++b) lengths[b] = int64_t(bench.random() % (T + 1));
      if (B > 2) lengths[B / 2] = T, lengths[B - 1] = 0;
    }
    if (kind != "all") {
      device_lengths = std::make_unique<Integers<int64_t>>(lengths);
      shape.lengths = device_lengths->data();
    }
    for (int64_t d = 0; d < D; ++d) {
      w_hh.push_back(bench.normal(shape.dtype, G * H * H, 1 / std::sqrt(double(H))));
      b_ih.push_back(bench.normal(shape.dtype, G * H));
      b_hh.push_back(bench.normal(shape.dtype, G * H));
    }
  }

  void set_strides() {
    stride_t = batch_first ? D * H : B * D * H;
    stride_b = batch_first ? T * D * H : D * H;
  }

  // From now on the problem has but one of its rows.
  void keep_row(int64_t b) {
    lengths = {lengths[b]};
    if (device_lengths != nullptr) {
      device_lengths = std::make_unique<Integers<int64_t>>(lengths);
      shape.lengths = device_lengths->data();
    }
    B = shape.B = 1;
    set_strides();
  }

  bool lstm() const { return shape.cell == kernels::Cell::kLstm; }
  bool gru() const { return shape.cell == kernels::Cell::kGru; }
  bool active(int64_t b, int64_t t) const { return t < lengths[b]; }
  int64_t time(int64_t d, int64_t step) const { return shape.reverse[d] ? T - 1 - step : step; }

  kernels::RecurrentWeights weights(int64_t d) const {
    kernels::RecurrentWeights w;
    w.w_hh = w_hh[d].data();
    if (bias) {
      w.b_ih = b_ih[d].data();
      w.b_hh = b_hh[d].data();
    }
    return w;
  }
  double bias_ih(int64_t d, int64_t row) const { return bias ? b_ih[d].values()[row] : 0; }
  double bias_hh(int64_t d, int64_t row) const { return bias ? b_hh[d].values()[row] : 0; }

  // First and behind last step of chunk i.
  int64_t begin(int64_t i) const { return T * i / chunks; }
};

// The plan as asked for on the command line: blocks that share the units though one could have all;
// fewer weights in registers.
inline kernels::cuda::Plan recut(Bench& bench, const RecurrentProblem& p,
                                 kernels::cuda::Plan plan) {
  if (!plan.persistent) throw std::runtime_error(std::string("stepwise: ") + plan.reason);
  plan.resident = int(bench.args.size("resident", plan.resident));
  plan.shared_bytes = bench.args.size("shared_bytes", plan.shared_bytes);
  std::printf("plan %d x %d blocks, %d units x %d rows, %lld bytes shared, chunks of %lld\n",
              plan.unit_blocks, plan.batch_blocks, plan.unit_tile, plan.batch_tile,
              static_cast<long long>(plan.shared_bytes), static_cast<long long>(plan.chunk_steps));
  return plan;
}

// Row b of a (blocks, rows, width) array, as one of (blocks, 1, width).
inline Array row_of(const Array& a, const std::vector<double>& values, int64_t rows, int64_t b,
                    int64_t width) {
  std::vector<double> row;
  for (int64_t i = b * width; i < a.count(); i += rows * width) {
    row.insert(row.end(), values.begin() + i, values.begin() + i + width);
  }
  return Array(a.dtype(), std::move(row));
}

inline bool same(const Array& a, const Array& b) {
  const auto x = a.download(), y = b.download();
  return std::memcmp(x.data(), y.data(), x.size() * sizeof(double)) == 0;
}
inline bool same(const std::vector<Array>& a, const std::vector<Array>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!same(a[i], b[i])) return false;
  }
  return true;
}

}  // namespace seq2seq_ext::kernel_bench
