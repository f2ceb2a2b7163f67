// SPDX-License-Identifier: MIT
// The linear map whose rows do not feel the batch around them.
#include "backend.h"
#include "cpu/launch.h"
#include "cpu_runtime.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

Tensor linear_rows(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                   bool tanh) {
  expect_dims(x, 2, "x", "N, K");
  expect_supported_dtype(x, "x");
  if (x.size(1) < 1) fail("x", shape_of(x), "K >= 1");
  expect_dims(weight, 2, "weight", "M, K");
  expect_like(weight, x, "weight", "x");
  kernels::LinearRowsParams p;
  p.dtype = kernel_dtype(x);
  p.N = x.size(0);
  p.K = x.size(1);
  p.M = weight.size(0);
  p.tanh = tanh;
  expect_shape(weight, {p.M, p.K}, "weight");
  if (bias) {
    expect_like(*bias, x, "bias", "x");
    expect_shape(*bias, {p.M}, "bias");
  }
  const Tensor y = allocate(x, {p.N, p.M});
  if (p.N == 0 || p.M == 0) return y;
  const Tensor x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  const auto bias_in = bias ? std::optional<Tensor>(as_contiguous(*bias)) : std::nullopt;
  p.x = x_in.const_data_ptr();
  p.weight = weight_in.const_data_ptr();
  p.bias = bias_in ? bias_in->const_data_ptr() : nullptr;
  p.y = y.mutable_data_ptr();
  expect_ok(kernels::cpu::linear_rows(p, cpu_runtime()));
  return y;
}

}  // namespace
}  // namespace seq2seq_ext::bindings

STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, CPU, m) {
  m.impl("linear_rows", TORCH_BOX(&seq2seq_ext::bindings::linear_rows));
}
