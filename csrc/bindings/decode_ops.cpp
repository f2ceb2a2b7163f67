// SPDX-License-Identifier: MIT
// The two halves of a decode step beside the cell: attention and the pick from the vocabulary.
#include <tuple>

#include "backend.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

using OptionalTensor = std::optional<Tensor>;

std::tuple<Tensor, Tensor> attention_step(const Tensor& query, const Tensor& keys,
                                          const Tensor& values, const OptionalTensor& lengths,
                                          bool additive, double scale,
                                          const OptionalTensor& w_query, const OptionalTensor& v) {
  expect_first(query, 2, "query", "B, Q");
  expect_first(keys, 3, "keys", "B, S, A");
  expect_first(values, 3, "values", "B, S, C");
  expect_supported_dtype(query, "query");
  kernels::AttentionStepParams p;
  p.score = additive ? kernels::AttentionScore::kAdditive : kernels::AttentionScore::kDot;
  p.dtype = kernel_dtype(query);
  p.B = query.size(0);
  p.Q = query.size(1);
  p.S = keys.size(1);
  p.A = keys.size(2);
  p.C = values.size(2);
  p.scale = scale;
  expect_like(keys, query, "keys", "query");
  expect_shape(keys, {p.B, p.S, p.A}, "keys");
  expect_like(values, query, "values", "query");
  expect_shape(values, {p.B, p.S, p.C}, "values");
  if (w_query) {
    expect_like(*w_query, query, "w_query", "query");
    expect_shape(*w_query, {p.A, p.Q}, "w_query");
  } else if (p.Q != p.A) {
    fail("query", std::to_string(p.Q), "last dimension ", p.A, " (no w_query)");
  }
  if (additive && !v) fail("v", "None", "a tensor, as score is 'additive'");
  if (!additive && v) fail("v", "a tensor", "None, as score is 'dot'");
  if (v) {
    expect_like(*v, query, "v", "query");
    expect_shape(*v, {p.A}, "v");
  }
  const OptionalTensor valid = checked_lengths(lengths, query, "query", p.B, p.S);

  const Tensor context = allocate(query, {p.B, p.C});
  const Tensor weights = allocate(query, {p.B, p.S});
  if (p.B == 0) return {context, weights};
  const Tensor query_in = as_contiguous(query);
  const Rows keys_in(keys), values_in(values);
  const OptionalTensor w_in = w_query ? OptionalTensor(as_contiguous(*w_query)) : std::nullopt;
  const OptionalTensor v_in = v ? OptionalTensor(as_contiguous(*v)) : std::nullopt;
  p.query = query_in.const_data_ptr();
  p.w_query = w_in ? w_in->const_data_ptr() : nullptr;
  p.v = v_in ? v_in->const_data_ptr() : nullptr;
  p.keys = keys_in.tensor.const_data_ptr();
  p.keys_stride_b = keys_in.stride_outer;
  p.keys_stride_s = keys_in.stride_inner;
  p.values = values_in.tensor.const_data_ptr();
  p.values_stride_b = values_in.stride_outer;
  p.values_stride_s = values_in.stride_inner;
  p.lengths = valid ? static_cast<const int64_t*>(valid->const_data_ptr()) : nullptr;
  p.context = context.mutable_data_ptr();
  p.weights = weights.mutable_data_ptr();
  expect_ok(backend::run(p, query));
  return {context, weights};
}

std::tuple<Tensor, Tensor> vocab_pick(const Tensor& hidden, const Tensor& weight,
                                      const OptionalTensor& bias, int64_t k) {
  expect_first(hidden, 2, "hidden", "B, H");
  expect_supported_dtype(hidden, "hidden");
  expect_like(weight, hidden, "weight", "hidden");
  expect_dims(weight, 2, "weight", "V, H");
  kernels::VocabPickParams p;
  p.dtype = kernel_dtype(hidden);
  p.B = hidden.size(0);
  p.H = hidden.size(1);
  p.V = weight.size(0);
  p.K = k;
  expect_shape(weight, {p.V, p.H}, "weight");
  if (bias) {
    expect_like(*bias, hidden, "bias", "hidden");
    expect_shape(*bias, {p.V}, "bias");
  }
  if (k < 1 || k > p.V) fail("k", std::to_string(k), "1 to V = ", p.V);

  const Tensor log_probs = allocate(hidden, {p.B, k}, state_type(hidden.scalar_type()));
  const Tensor indices = allocate(hidden, {p.B, k}, ScalarType::Long);
  if (p.B == 0) return {log_probs, indices};
  const Tensor hidden_in = as_contiguous(hidden), weight_in = as_contiguous(weight);
  const OptionalTensor bias_in = bias ? OptionalTensor(as_contiguous(*bias)) : std::nullopt;
  p.hidden = hidden_in.const_data_ptr();
  p.weight = weight_in.const_data_ptr();
  p.bias = bias_in ? bias_in->const_data_ptr() : nullptr;
  p.log_probs = log_probs.mutable_data_ptr();
  p.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
  expect_ok(backend::run(p, hidden));
  return {log_probs, indices};
}

}  // namespace

void register_decode_ops(Library& m) {
  m.impl("attention_step", TORCH_BOX(&attention_step));
  m.impl("vocab_pick", TORCH_BOX(&vocab_pick));
}

}  // namespace seq2seq_ext::bindings
