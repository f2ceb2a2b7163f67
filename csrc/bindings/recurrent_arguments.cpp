// SPDX-License-Identifier: MIT
#include "recurrent_arguments.h"

namespace seq2seq_ext::bindings {

using kernels::Cell;

const void* at(const Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.const_data_ptr()) +
         offset * static_cast<int64_t>(tensor.element_size());
}

void* mutable_at(const Tensor& tensor, int64_t offset) {
  return static_cast<char*>(tensor.mutable_data_ptr()) +
         offset * static_cast<int64_t>(tensor.element_size());
}

WeightList::WeightList(Cell cell, const std::vector<Tensor>& weights, const Tensor& x,
                       int64_t directions, int64_t inputs, const Tensor& h, const char* h_name) {
  const int64_t outputs = h.size(h.dim() - 1);
  // An empty w_hr has no address, which the kernels read as no projection, hence P == H.
  if (outputs < 1) fail(h_name, shape_of(h), "P >= 1");
  const bool lstm = cell == Cell::kLstm;
  const int64_t count = static_cast<int64_t>(weights.size());
  const int64_t per = count / directions;
  const bool known = lstm ? per >= 2 && per <= 5 : per == 2 || per == 4;
  if (!known || per * directions != count) {
    fail("weights", std::to_string(count) + " for " + std::to_string(directions),
         lstm ? "2, 3, 4 or 5" : "2 or 4", " tensors per direction");
  }
  per_direction_ = per;
  const int64_t gates = kernels::num_gates(cell);
  const int64_t rows = weights[0].dim() == 2 ? weights[0].size(0) : 0;
  hidden_ = rows / gates;
  if (rows < 1 || rows != hidden_ * gates) {
    fail({"weights", 0, "w_ih"}, shape_of(weights[0]), "shape (", gates, "*H, ", inputs, ")");
  }
  if (!has_projection() && outputs != hidden_) {
    fail(h_name, std::to_string(outputs), "last dimension ", hidden_);
  }
  tensors_.reserve(weights.size());
  for (int64_t n = 0; n < count; ++n) {
    const Tensor& weight = weights[n];
    const int64_t place = n % per;
    const bool projection = has_projection() && place == per - 1;
    const char* role = projection   ? "w_hr"
                       : place == 0 ? "w_ih"
                       : place == 1 ? "w_hh"
                       : place == 2 ? "b_ih"
                                    : "b_hh";
    const Name name("weights", static_cast<int>(n), role);
    expect_like(weight, x, name, "x");
    if (projection) {
      expect_shape(weight, {outputs, hidden_}, name);
    } else if (place >= 2) {
      expect_shape(weight, {rows}, name);
    } else {
      expect_shape(weight, {rows, place == 0 ? inputs : outputs}, name);
    }
    tensors_.push_back(as_contiguous(weight));
  }
}

kernels::RecurrentWeights WeightList::direction(int64_t d) const {
  const Tensor* first = &tensors_[d * per_direction_];
  kernels::RecurrentWeights weights;
  weights.w_ih = first[0].const_data_ptr();
  weights.w_hh = first[1].const_data_ptr();
  if (has_bias()) {
    weights.b_ih = first[2].const_data_ptr();
    weights.b_hh = first[3].const_data_ptr();
  }
  if (has_projection()) weights.w_hr = first[per_direction_ - 1].const_data_ptr();
  return weights;
}

namespace {

// h0 decides D and P, which the weights are checked against, so it comes first.
WeightList checked_weights(Cell cell, const Tensor& x, const Tensor& h0,
                           const std::vector<Tensor>& weights, bool reverse) {
  expect_first(x, 3, "x", "T, B, I");
  expect_like(h0, x, "h0", "x");
  expect_dims(h0, 3, "h0", "D, B, P");
  const int64_t directions = h0.size(0), outputs = h0.size(2);
  if (directions != 1 && directions != 2) {
    fail("h0", shape_of(h0), "1 or 2 directions (D, B, P)");
  }
  expect_shape(h0, {directions, x.size(1), outputs}, "h0");
  if (reverse && directions == 2) fail("reverse", "True", "False with two directions");
  return WeightList(cell, weights, x, directions, x.size(2), h0, "h0");
}

}  // namespace

SequenceArguments::SequenceArguments(Cell cell, const Tensor& x, const Tensor& h0,
                                     const std::optional<Tensor>& c0,
                                     const std::vector<Tensor>& weights,
                                     const std::optional<Tensor>& lengths, bool reverse)
    : weights(checked_weights(cell, x, h0, weights, reverse)),
      x(x),
      h0(as_contiguous(h0)),
      dtype(x.scalar_type()),
      state(state_type(dtype)) {
  shape.cell = cell;
  shape.dtype = kernel_dtype(x);
  shape.T = x.size(0);
  shape.B = x.size(1);
  shape.I = x.size(2);
  shape.H = this->weights.hidden();
  shape.P = h0.size(2);
  shape.directions = static_cast<int>(h0.size(0));
  shape.reverse[0] = reverse;
  shape.reverse[1] = true;
  if (cell == Cell::kLstm) {
    expect_cell_state(*c0, x, "c0");
    expect_shape(*c0, {shape.directions, shape.B, shape.H}, "c0");
    this->c0 = as_contiguous(converted(*c0, state));
  }
  this->lengths = checked_lengths(lengths, x, "x", shape.B, shape.T);
  if (this->lengths) shape.lengths = static_cast<const int64_t*>(this->lengths->const_data_ptr());
}

}  // namespace seq2seq_ext::bindings
