// SPDX-License-Identifier: MIT
#include "sequence_ops.h"

#include "common/dtype.h"

namespace seq2seq_ext::bindings {

using kernels::Cell;
using kernels::num_saved;

SequenceResults sequence_forward(Cell cell, const Tensor& x, const Tensor& h0,
                                 const std::optional<Tensor>& c0,
                                 const std::vector<Tensor>& weights,
                                 const std::optional<Tensor>& lengths, bool reverse, bool save,
                                 RunForward run) {
  const SequenceArguments args(cell, x, h0, c0, weights, lengths, reverse);
  const auto& s = args.shape;
  const int64_t D = s.directions, saved_width = num_saved(cell) * s.H;
  const bool lstm = cell == Cell::kLstm;

  const Tensor y = allocate(x, {s.T, s.B, D * s.P});
  const Tensor h_n = allocate(x, {D, s.B, s.P});
  const Tensor c_n = lstm ? allocate(x, {D, s.B, s.H}, args.state) : nothing(x);
  const Tensor saved_gates = save ? allocate(x, {D, s.T * s.B, saved_width}) : nothing(x);
  const Tensor saved_cells =
      save && lstm ? allocate(x, {D, s.T * s.B, s.H}, args.state) : allocate(x, {0}, args.state);

  if (s.B > 0) {
    kernels::SequenceForwardParams p;
    p.shape = s;
    p.x = args.x.tensor.const_data_ptr();
    p.x_stride_t = args.x.stride_outer;
    p.x_stride_b = args.x.stride_inner;
    p.y = y.mutable_data_ptr();
    p.y_stride_t = s.B * D * s.P;
    p.y_stride_b = D * s.P;
    for (int64_t d = 0; d < D; ++d) {
      auto& direction = p.direction[d];
      direction.weights = args.weights.direction(d);
      direction.h0 = at(args.h0, d * s.B * s.P);
      direction.h_n = mutable_at(h_n, d * s.B * s.P);
      if (lstm) {
        direction.c0 = at(*args.c0, d * s.B * s.H);
        direction.c_n = mutable_at(c_n, d * s.B * s.H);
      }
      if (save) {
        direction.saved_gates = mutable_at(saved_gates, d * s.T * s.B * saved_width);
        if (lstm) direction.saved_cells = mutable_at(saved_cells, d * s.T * s.B * s.H);
      }
    }
    expect_ok(run(p));
  }
  return {y, h_n, lstm ? converted(c_n, c0->scalar_type()) : c_n, saved_gates, saved_cells};
}

namespace {

Tensor allocate_like(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return sizes.size() == 1 ? allocate(tensor, {sizes[0]}) : allocate(tensor, {sizes[0], sizes[1]});
}

// A gradient of a state: checked, in the given type, contiguous.
std::optional<Tensor> state_grad(const std::optional<Tensor>& grad, const SequenceArguments& args,
                                 int64_t width, ScalarType type, const Name& name) {
  if (!grad) return std::nullopt;
  expect_shape(*grad, {args.shape.directions, args.shape.B, width}, name);
  return as_contiguous(converted(*grad, type));
}

void fill_weight_grads(kernels::RecurrentWeightGrads& grads, const WeightList& weights,
                       const std::vector<Tensor>& dweights, int64_t d, int64_t wanted) {
  const int64_t per = weights.per_direction();
  const auto pointer = [&](int64_t place) -> void* {
    const int64_t n = d * per + place;
    return wanted >> (3 + n) & 1 ? dweights[n].mutable_data_ptr() : nullptr;
  };
  grads.w_ih = pointer(0);
  grads.w_hh = pointer(1);
  if (weights.has_bias()) {
    grads.b_ih = pointer(2);
    grads.b_hh = pointer(3);
  }
  if (weights.has_projection()) grads.w_hr = pointer(per - 1);
}

}  // namespace

SequenceGrads sequence_backward(Cell cell, const SequenceGradInputs& given, const Tensor& x,
                                const Tensor& h0, const std::optional<Tensor>& c0,
                                const std::vector<Tensor>& weights,
                                const std::optional<Tensor>& lengths, bool reverse, int64_t wanted,
                                RunBackward run) {
  const SequenceArguments args(cell, x, h0, c0, weights, lengths, reverse);
  const auto& s = args.shape;
  const int64_t D = s.directions, saved_width = num_saved(cell) * s.H;
  const bool lstm = cell == Cell::kLstm;
  const bool want_x = wanted & 1, want_h0 = wanted >> 1 & 1, want_c0 = lstm && (wanted >> 2 & 1);

  expect_like(given.y, x, "y", "x");
  expect_shape(given.y, {s.T, s.B, D * s.P}, "y");
  const Tensor y = as_contiguous(given.y);
  expect_like(given.saved_gates, x, "saved_gates", "x");
  expect_shape(given.saved_gates, {D, s.T * s.B, saved_width}, "saved_gates");
  const Tensor saved_gates = as_contiguous(given.saved_gates);
  std::optional<Tensor> saved_cells;
  if (lstm) {
    expect_shape(*given.saved_cells, {D, s.T * s.B, s.H}, "saved_cells");
    saved_cells = as_contiguous(converted(*given.saved_cells, args.state));
  }
  std::optional<Rows> dy;
  if (given.dy) {
    expect_like(*given.dy, x, "dy", "x");
    expect_shape(*given.dy, {s.T, s.B, D * s.P}, "dy");
    dy.emplace(*given.dy);
  }
  const auto dh_n = state_grad(given.dh_n, args, s.P, args.dtype, "dh_n");
  const auto dc_n = lstm ? state_grad(given.dc_n, args, s.H, args.state, "dc_n") : std::nullopt;

  SequenceGrads grads{want_x ? allocate(x, {s.T, s.B, s.I}) : nothing(x),
                      want_h0 ? allocate(x, {D, s.B, s.P}) : nothing(x),
                      want_c0 ? allocate(x, {D, s.B, s.H}, args.state) : nothing(x),
                      {}};
  grads.dweights.reserve(weights.size());
  for (size_t n = 0; n < weights.size(); ++n) {
    grads.dweights.push_back(wanted >> (3 + n) & 1 ? allocate_like(weights[n]) : nothing(x));
  }

  if (s.B == 0) {
    for (const Tensor& grad : grads.dweights) zeroed(grad);
  } else {
    kernels::SequenceBackwardParams p;
    p.shape = s;
    p.x = args.x.tensor.const_data_ptr();
    p.x_stride_t = args.x.stride_outer;
    p.x_stride_b = args.x.stride_inner;
    p.y = y.const_data_ptr();
    p.y_stride_t = s.B * D * s.P;
    p.y_stride_b = D * s.P;
    p.dy = dy ? dy->tensor.const_data_ptr() : nullptr;
    p.dy_stride_t = dy ? dy->stride_outer : 0;
    p.dy_stride_b = dy ? dy->stride_inner : 0;
    p.dx = want_x ? grads.dx.mutable_data_ptr() : nullptr;
    for (int64_t d = 0; d < D; ++d) {
      auto& direction = p.direction[d];
      const int64_t h_offset = d * s.B * s.P, c_offset = d * s.B * s.H;
      direction.weights = args.weights.direction(d);
      direction.h0 = at(args.h0, h_offset);
      direction.saved_gates = at(saved_gates, d * s.T * s.B * saved_width);
      if (dh_n) direction.dh_n = at(*dh_n, h_offset);
      if (want_h0) direction.dh0 = mutable_at(grads.dh0, h_offset);
      if (lstm) {
        direction.c0 = at(*args.c0, c_offset);
        direction.saved_cells = at(*saved_cells, d * s.T * s.B * s.H);
        if (dc_n) direction.dc_n = at(*dc_n, c_offset);
        if (want_c0) direction.dc0 = mutable_at(grads.dc0, c_offset);
      }
      fill_weight_grads(direction.grads, args.weights, grads.dweights, d, wanted);
    }
    expect_ok(run(p));
  }
  if (want_c0) grads.dc0 = converted(grads.dc0, c0->scalar_type());
  return grads;
}

}  // namespace seq2seq_ext::bindings
