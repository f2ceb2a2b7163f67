// SPDX-License-Identifier: MIT
// NumPy bindings of the decode kernels, and of the vector functions that all kernels share.
#include "arrays.h"
#include "cpu/launch.h"
#include "math_probe.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

py::tuple attention_step(const py::array& query, const py::array& keys, const py::array& values,
                         const MaybeArray& lengths, const std::string& score, double scale,
                         const MaybeArray& w_query, const MaybeArray& v, int threads) {
  if (query.ndim() != 2 || keys.ndim() != 3 || values.ndim() != 3) {
    throw py::value_error("expected query (B, Q), keys (B, S, A), values (B, S, C)");
  }
  kernels::AttentionStepParams p{};
  if (score != "dot" && score != "additive")
    throw py::value_error("score: expected dot or additive");
  p.score = score == "dot" ? kernels::AttentionScore::kDot : kernels::AttentionScore::kAdditive;
  p.dtype = dtype_of(query, "query");
  p.B = query.shape(0);
  p.Q = query.shape(1);
  p.S = keys.shape(1);
  p.A = keys.shape(2);
  p.C = values.shape(2);
  p.scale = scale;
  p.query = input(query, "query", p.dtype, {p.B, p.Q});
  p.w_query = input(w_query, "w_query", p.dtype, {p.A, p.Q});
  p.v = input(v, "v", p.dtype, {p.A});
  if (p.score == kernels::AttentionScore::kAdditive && p.v == nullptr) {
    throw py::value_error("v: wanted by score additive");
  }
  p.keys = input(keys, "keys", p.dtype, {p.B, p.S, p.A}, true);
  p.keys_stride_b = stride(keys, 0);
  p.keys_stride_s = stride(keys, 1);
  p.values = input(values, "values", p.dtype, {p.B, p.S, p.C}, true);
  p.values_stride_b = stride(values, 0);
  p.values_stride_s = stride(values, 1);
  p.lengths = input_lengths(lengths, p.B, p.S);
  py::array context = output(p.dtype, {p.B, p.C}), weights = output(p.dtype, {p.B, p.S});
  p.context = context.mutable_data();
  p.weights = weights.mutable_data();
  {
    py::gil_scoped_release release;
    const kernels::Status status =
        kernels::cpu::attention_step(p, kernels::default_runtime(threads));
    py::gil_scoped_acquire acquire;
    expect_ok(status);
  }
  return py::make_tuple(context, weights);
}

py::tuple vocab_pick(const py::array& hidden, const py::array& weight, const MaybeArray& bias,
                     int64_t k, int threads) {
  if (hidden.ndim() != 2 || weight.ndim() != 2) {
    throw py::value_error("expected hidden (B, H), weight (V, H)");
  }
  kernels::VocabPickParams p{};
  p.dtype = dtype_of(hidden, "hidden");
  p.B = hidden.shape(0);
  p.H = hidden.shape(1);
  p.V = weight.shape(0);
  p.K = k;
  p.hidden = input(hidden, "hidden", p.dtype, {p.B, p.H});
  p.weight = input(weight, "weight", p.dtype, {p.V, p.H});
  p.bias = input(bias, "bias", p.dtype, {p.V});
  py::array log_probs = output(state_of(p.dtype), {p.B, std::max<int64_t>(k, 0)});
  py::array_t<int64_t> indices({p.B, std::max<int64_t>(k, 0)});
  std::memset(indices.mutable_data(), 0xff, static_cast<size_t>(indices.nbytes()));
  p.log_probs = log_probs.mutable_data();
  p.indices = indices.mutable_data();
  {
    py::gil_scoped_release release;
    const kernels::Status status = kernels::cpu::vocab_pick(p, kernels::default_runtime(threads));
    py::gil_scoped_acquire acquire;
    expect_ok(status);
  }
  return py::make_tuple(log_probs, indices);
}

py::array evaluate(const std::string& function, const py::array& x) {
  const DType dtype = dtype_of(x, "x");
  if (dtype == DType::kBFloat16) throw py::value_error("x: expected float32 or float64");
  const Shape shape(x.shape(), x.shape() + x.ndim());
  const void* data = input(x, "x", dtype, shape);
  py::array y = output(dtype, shape);
  if (!math_probe(function, dtype, x.size(), data, y.mutable_data())) {
    throw py::value_error("function: expected exp, sigmoid or tanh, got " + function);
  }
  return y;
}

}  // namespace

void bind_decode(py::module_& m) {
  using namespace py::literals;
  m.def("attention_step", &attention_step, "query"_a, "keys"_a, "values"_a, py::kw_only(),
        "lengths"_a = py::none(), "score"_a = "dot", "scale"_a = 1.0, "w_query"_a = py::none(),
        "v"_a = py::none(), "threads"_a = 1,
        "query (B, Q), keys (B, S, A), values (B, S, C) -> context (B, C), weights (B, S)");
  m.def("vocab_pick", &vocab_pick, "hidden"_a, "weight"_a, "bias"_a = py::none(), py::kw_only(),
        "k"_a = 1, "threads"_a = 1,
        "hidden (B, H), weight (V, H), bias (V) -> log_probs (B, k), indices (B, k)");
  m.def("evaluate", &evaluate, "function"_a, "x"_a,
        "The kernels' own exp, sigmoid or tanh of every element of x");
}

}  // namespace seq2seq_ext::kernels_python
