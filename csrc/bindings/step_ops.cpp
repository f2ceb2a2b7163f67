// SPDX-License-Identifier: MIT
// One time step of one layer, without gradients.
#include <tuple>

#include "backend.h"
#include "recurrent_arguments.h"

namespace seq2seq_ext::bindings {
namespace {

using kernels::Cell;
using Tensors = std::vector<Tensor>;
using OptionalTensor = std::optional<Tensor>;

std::tuple<Tensor, OptionalTensor> step(Cell cell, const Tensor& x, const Tensor& h,
                                        const OptionalTensor& c, const Tensors& weights) {
  expect_first(x, 2, "x", "B, I");
  expect_supported_dtype(x, "x");
  expect_like(h, x, "h", "x");
  expect_dims(h, 2, "h", "B, P");
  const int64_t batch = x.size(0), outputs = h.size(1);
  expect_shape(h, {batch, outputs}, "h");
  const WeightList list(cell, weights, x, 1, x.size(1), h, "h");
  const int64_t hidden = list.hidden();

  OptionalTensor state, c_out;
  if (c) {
    expect_cell_state(*c, x, "c");
    expect_shape(*c, {batch, hidden}, "c");
    state = as_contiguous(converted(*c, state_type(x.scalar_type())));
    c_out = allocate(x, {batch, hidden}, state->scalar_type());
  }
  const Tensor h_out = allocate(x, {batch, outputs});
  if (batch > 0) {
    const bool strided = x.is_contiguous() || (x.stride(1) == 1 && x.stride(0) >= x.size(1));
    const Tensor rows = strided ? x : torch::stable::contiguous(x);
    const Tensor h_in = as_contiguous(h);
    kernels::StepParams p;
    p.cell = cell;
    p.dtype = kernel_dtype(x);
    p.B = batch;
    p.I = x.size(1);
    p.H = hidden;
    p.P = outputs;
    p.weights = list.direction(0);
    p.x = rows.const_data_ptr();
    p.x_stride_b = rows.is_contiguous() ? p.I : rows.stride(0);
    p.h = h_in.const_data_ptr();
    p.h_out = h_out.mutable_data_ptr();
    if (c) {
      p.c = state->const_data_ptr();
      p.c_out = c_out->mutable_data_ptr();
    }
    expect_ok(backend::run(p, x));
  }
  if (c) c_out = converted(*c_out, c->scalar_type());
  return {h_out, c_out};
}

std::tuple<Tensor, Tensor> lstm_step(const Tensor& x, const Tensor& h, const Tensor& c,
                                     const Tensors& weights) {
  auto [h_out, c_out] = step(Cell::kLstm, x, h, c, weights);
  return {h_out, *c_out};
}

Tensor gru_step(const Tensor& x, const Tensor& h, const Tensors& weights) {
  return std::get<0>(step(Cell::kGru, x, h, std::nullopt, weights));
}

Tensor rnn_step(const Tensor& x, const Tensor& h, const Tensors& weights, bool relu) {
  return std::get<0>(step(rnn_cell(relu), x, h, std::nullopt, weights));
}

}  // namespace

void register_step_ops(Library& m) {
  m.impl("lstm_step", TORCH_BOX(&lstm_step));
  m.impl("gru_step", TORCH_BOX(&gru_step));
  m.impl("rnn_step", TORCH_BOX(&rnn_step));
}

}  // namespace seq2seq_ext::bindings
