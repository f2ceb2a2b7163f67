// SPDX-License-Identifier: MIT
// The sequence ops, forward and backward.
#include <tuple>

#include "backend.h"
#include "common/dtype.h"
#include "recurrent_arguments.h"

namespace seq2seq_ext::bindings {
namespace {

using kernels::Cell;
using kernels::num_saved;
using Tensors = std::vector<Tensor>;
using OptionalTensor = std::optional<Tensor>;

// ------------------------------------------------------------------------------------------------
// Forward.

struct SequenceResults {
  Tensor y;            // (T, B, D*P)
  Tensor h_n;          // (D, B, P)
  Tensor c_n;          // (D, B, H) in c0's dtype; LSTM only, else empty
  Tensor saved_gates;  // (D, T*B, num_saved*H), empty without `save`
  Tensor saved_cells;  // (D, T*B, H) state; LSTM with `save` only, else empty
};

SequenceResults sequence_forward(Cell cell, const Tensor& x, const Tensor& h0,
                                 const OptionalTensor& c0, const Tensors& weights,
                                 const OptionalTensor& lengths, bool reverse, bool save) {
  expect_supported_dtype(x, "x");
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
    expect_ok(backend::run(p, x));
  }
  return {y, h_n, lstm ? converted(c_n, c0->scalar_type()) : c_n, saved_gates, saved_cells};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_sequence(const Tensor& x, const Tensor& h0,
                                                                 const Tensor& c0,
                                                                 const Tensors& weights,
                                                                 const OptionalTensor& lengths,
                                                                 bool reverse, bool save) {
  auto r = sequence_forward(Cell::kLstm, x, h0, c0, weights, lengths, reverse, save);
  return {r.y, r.h_n, r.c_n, r.saved_gates, r.saved_cells};
}

std::tuple<Tensor, Tensor, Tensor> gru_sequence(const Tensor& x, const Tensor& h0,
                                                const Tensors& weights,
                                                const OptionalTensor& lengths, bool reverse,
                                                bool save) {
  auto r = sequence_forward(Cell::kGru, x, h0, std::nullopt, weights, lengths, reverse, save);
  return {r.y, r.h_n, r.saved_gates};
}

std::tuple<Tensor, Tensor, Tensor> rnn_sequence(const Tensor& x, const Tensor& h0,
                                                const Tensors& weights,
                                                const OptionalTensor& lengths, bool relu,
                                                bool reverse, bool save) {
  auto r = sequence_forward(rnn_cell(relu), x, h0, std::nullopt, weights, lengths, reverse, save);
  return {r.y, r.h_n, r.saved_gates};
}

// ------------------------------------------------------------------------------------------------
// Backward.

// What the forward gave and what autograd brings.
struct SequenceGradInputs {
  OptionalTensor dy, dh_n, dc_n;
  Tensor y, saved_gates;
  OptionalTensor saved_cells;
};

// Bits of `wanted`: 0 x, 1 h0, 2 c0, 3 + n weights[n]. A gradient that is not wanted comes back
// with shape (0,).
struct SequenceGrads {
  Tensor dx, dh0, dc0;
  std::vector<Tensor> dweights;
};

Tensor allocate_like(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return sizes.size() == 1 ? allocate(tensor, {sizes[0]}) : allocate(tensor, {sizes[0], sizes[1]});
}

// A gradient of a state: checked, in the given type, contiguous.
OptionalTensor state_grad(const OptionalTensor& grad, const SequenceArguments& args, int64_t width,
                          ScalarType type, const Name& name) {
  if (!grad) return std::nullopt;
  expect_shape(*grad, {args.shape.directions, args.shape.B, width}, name);
  return as_contiguous(converted(*grad, type));
}

void fill_weight_grads(kernels::RecurrentWeightGrads& grads, const WeightList& weights,
                       const Tensors& dweights, int64_t d, int64_t wanted) {
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

SequenceGrads sequence_backward(Cell cell, const SequenceGradInputs& given, const Tensor& x,
                                const Tensor& h0, const OptionalTensor& c0, const Tensors& weights,
                                const OptionalTensor& lengths, bool reverse, int64_t wanted) {
  expect_supported_dtype(x, "x");
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
  OptionalTensor saved_cells;
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
    expect_ok(backend::run(p, x));
  }
  if (want_c0) grads.dc0 = converted(grads.dc0, c0->scalar_type());
  return grads;
}

std::tuple<Tensor, Tensor, Tensor, Tensors> lstm_sequence_backward(
    const OptionalTensor& dy, const OptionalTensor& dh_n, const OptionalTensor& dc_n,
    const Tensor& x, const Tensor& h0, const Tensor& c0, const Tensors& weights,
    const OptionalTensor& lengths, const Tensor& y, const Tensor& saved_gates,
    const Tensor& saved_cells, bool reverse, int64_t wanted) {
  auto g = sequence_backward(Cell::kLstm, {dy, dh_n, dc_n, y, saved_gates, saved_cells}, x, h0, c0,
                             weights, lengths, reverse, wanted);
  return {g.dx, g.dh0, g.dc0, g.dweights};
}

std::tuple<Tensor, Tensor, Tensors> single_state_backward(
    Cell cell, const OptionalTensor& dy, const OptionalTensor& dh_n, const Tensor& x,
    const Tensor& h0, const Tensors& weights, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& saved_gates, bool reverse, int64_t wanted) {
  auto g = sequence_backward(cell, {dy, dh_n, std::nullopt, y, saved_gates, std::nullopt}, x, h0,
                             std::nullopt, weights, lengths, reverse, wanted);
  return {g.dx, g.dh0, g.dweights};
}

std::tuple<Tensor, Tensor, Tensors> gru_sequence_backward(
    const OptionalTensor& dy, const OptionalTensor& dh_n, const Tensor& x, const Tensor& h0,
    const Tensors& weights, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& saved_gates, bool reverse, int64_t wanted) {
  return single_state_backward(Cell::kGru, dy, dh_n, x, h0, weights, lengths, y, saved_gates,
                               reverse, wanted);
}

std::tuple<Tensor, Tensor, Tensors> rnn_sequence_backward(
    const OptionalTensor& dy, const OptionalTensor& dh_n, const Tensor& x, const Tensor& h0,
    const Tensors& weights, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& saved_gates, bool relu, bool reverse, int64_t wanted) {
  return single_state_backward(rnn_cell(relu), dy, dh_n, x, h0, weights, lengths, y, saved_gates,
                               reverse, wanted);
}

}  // namespace

void register_sequence_ops(Library& m) {
  m.impl("lstm_sequence", TORCH_BOX(&lstm_sequence));
  m.impl("gru_sequence", TORCH_BOX(&gru_sequence));
  m.impl("rnn_sequence", TORCH_BOX(&rnn_sequence));
  m.impl("lstm_sequence_backward", TORCH_BOX(&lstm_sequence_backward));
  m.impl("gru_sequence_backward", TORCH_BOX(&gru_sequence_backward));
  m.impl("rnn_sequence_backward", TORCH_BOX(&rnn_sequence_backward));
}

}  // namespace seq2seq_ext::bindings
