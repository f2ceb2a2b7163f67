// SPDX-License-Identifier: MIT
// The two halves of a decode step beside the cell: attention and the pick from the vocabulary.
#include <cmath>
#include <sstream>
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

// What both ops of the vocabulary take, checked; with what has to live until the kernel is queued.
struct VocabArguments {
  kernels::VocabPickParams p;
  Tensor hidden, weight;
  OptionalTensor bias, banned, panels;

  VocabArguments(const Tensor& hidden_given, const Tensor& weight_given,
                 const OptionalTensor& bias_given, const OptionalTensor& banned_given,
                 double temperature, const OptionalTensor& panels_given)
      : hidden(hidden_given), weight(weight_given) {
    expect_first(hidden, 2, "hidden", "B, H");
    expect_supported_dtype(hidden, "hidden");
    expect_like(weight, hidden, "weight", "hidden");
    expect_dims(weight, 2, "weight", "V, H");
    p.dtype = kernel_dtype(hidden);
    p.B = hidden.size(0);
    p.H = hidden.size(1);
    p.V = weight.size(0);
    p.K = 1;
    p.temperature = temperature;
    expect_shape(weight, {p.V, p.H}, "weight");
    if (bias_given) {
      expect_like(*bias_given, hidden, "bias", "hidden");
      expect_shape(*bias_given, {p.V}, "bias");
      bias = as_contiguous(*bias_given);
      p.bias = bias->const_data_ptr();
    }
    if (panels_given) {
      expect_panels(*panels_given, hidden, "hidden", p.V, p.H, 0, "panels");
      panels = as_contiguous(*panels_given);
      p.panels = panels->const_data_ptr();
    }
    if (banned_given) {
      expect_integers(*banned_given, ScalarType::Int, "banned", hidden);
      expect_shape(*banned_given, {p.B, (p.V + 31) / 32}, "banned");
      banned = as_contiguous(*banned_given);
      p.banned = static_cast<const int32_t*>(banned->const_data_ptr());
    }
    if (!(temperature > 0) || std::isinf(temperature)) {
      std::ostringstream got;
      got << temperature;
      fail("temperature", got.str(), "a positive number");
    }
  }

  // (B, k), or (B) for a draw.
  std::tuple<Tensor, Tensor> run() {
    const bool draw = p.seed != nullptr;
    const auto result = [&](ScalarType type) {
      return draw ? allocate(hidden, {p.B}, type) : allocate(hidden, {p.B, p.K}, type);
    };
    const Tensor log_probs = result(state_type(hidden.scalar_type()));
    const Tensor indices = result(ScalarType::Long);
    if (p.B == 0) return {log_probs, indices};
    hidden = as_contiguous(hidden);
    weight = as_contiguous(weight);
    p.hidden = hidden.const_data_ptr();
    p.weight = weight.const_data_ptr();
    p.log_probs = log_probs.mutable_data_ptr();
    p.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
    expect_ok(backend::run(p, hidden));
    return {log_probs, indices};
  }

  static void expect_integers(const Tensor& tensor, ScalarType type, const char* name,
                              const Tensor& hidden) {
    if (tensor.scalar_type() != type) {
      fail(name, dtype_text(tensor.scalar_type()), "dtype ", dtype_text(type));
    }
    expect_device(tensor, hidden, name, "hidden");
  }

  const int64_t* number(const Tensor& tensor, const char* name) const {
    expect_integers(tensor, ScalarType::Long, name, hidden);
    if (tensor.numel() != 1) fail(name, shape_of(tensor), "one element");
    return static_cast<const int64_t*>(tensor.const_data_ptr());
  }
};

std::tuple<Tensor, Tensor> vocab_pick(const Tensor& hidden, const Tensor& weight,
                                      const OptionalTensor& bias, int64_t k,
                                      const OptionalTensor& banned, double temperature,
                                      const OptionalTensor& panels) {
  VocabArguments arguments(hidden, weight, bias, banned, temperature, panels);
  kernels::VocabPickParams& p = arguments.p;
  if (k < 1 || k > p.V) fail("k", std::to_string(k), "1 to V = ", p.V);
  p.K = k;
  return arguments.run();
}

std::tuple<Tensor, Tensor> vocab_sample(const Tensor& hidden, const Tensor& weight,
                                        const OptionalTensor& bias, const Tensor& seed,
                                        const Tensor& step, const OptionalTensor& rows,
                                        const OptionalTensor& banned, double temperature) {
  VocabArguments arguments(hidden, weight, bias, banned, temperature, std::nullopt);
  kernels::VocabPickParams& p = arguments.p;
  p.seed = arguments.number(seed, "seed");
  p.step = arguments.number(step, "step");
  OptionalTensor ids;
  if (rows) {
    VocabArguments::expect_integers(*rows, ScalarType::Long, "rows", hidden);
    expect_shape(*rows, {p.B}, "rows");
    ids = as_contiguous(*rows);
    p.rows = static_cast<const int64_t*>(ids->const_data_ptr());
  }
  return arguments.run();
}

}  // namespace

void register_decode_ops(Library& m) {
  m.impl("attention_step", TORCH_BOX(&attention_step));
  m.impl("vocab_pick", TORCH_BOX(&vocab_pick));
  m.impl("vocab_sample", TORCH_BOX(&vocab_sample));
}

}  // namespace seq2seq_ext::bindings
