// SPDX-License-Identifier: MIT
// NumPy bindings of the decode kernels.
#include "launch.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

// The data of a C-contiguous array of integers of this shape; null for none.
template <class T>
const T* integers(const MaybeArray& a, const char* name, const Shape& shape) {
  if (!a) return nullptr;
  if (!a->dtype().is(py::dtype::of<T>()) || Shape(a->shape(), a->shape() + a->ndim()) != shape ||
      (a->flags() & py::array::c_style) == 0) {
    throw py::value_error(std::string(name) + ": expected contiguous " +
                          std::string(py::str(py::dtype::of<T>())) + " of shape " + text(shape));
  }
  return static_cast<const T*>(a->data());
}

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
  launch(&launchers::attention_step, p, threads);
  return py::make_tuple(context, weights);
}

// What both vocabulary functions take.
kernels::VocabPickParams vocab_params(const py::array& hidden, const py::array& weight,
                                      const MaybeArray& bias, const MaybeArray& banned,
                                      double temperature) {
  if (hidden.ndim() != 2 || weight.ndim() != 2) {
    throw py::value_error("expected hidden (B, H), weight (V, H)");
  }
  kernels::VocabPickParams p{};
  p.dtype = dtype_of(hidden, "hidden");
  p.B = hidden.shape(0);
  p.H = hidden.shape(1);
  p.V = weight.shape(0);
  p.K = 1;
  p.hidden = input(hidden, "hidden", p.dtype, {p.B, p.H});
  p.weight = input(weight, "weight", p.dtype, {p.V, p.H});
  p.bias = input(bias, "bias", p.dtype, {p.V});
  p.banned = integers<int32_t>(banned, "banned", {p.B, (p.V + 31) / 32});
  p.temperature = temperature;
  return p;
}

// If they are wanted, the weight in panels, which is then all that there is to read.
std::vector<char> pack(kernels::VocabPickParams& p, bool panels) {
  std::vector<char> packed;
  if (!panels) return packed;
#ifdef SEQ2SEQ_EXT_HOST_EXECUTION
  throw py::value_error("panels: are for the CPU");
#else
  packed = panels_of({p.dtype, p.V, p.H, 0, p.weight, nullptr});
  p.panels = packed.data();
  p.weight = nullptr;
  return packed;
#endif
}

// Runs the kernel and returns its outputs, of shape (B) with a seed, else (B, K).
py::tuple run_vocab(kernels::VocabPickParams& p, int threads) {
  Shape shape{p.B};
  if (p.seed == nullptr) shape.push_back(std::max<int64_t>(p.K, 0));
  py::array log_probs = output(state_of(p.dtype), shape);
  py::array_t<int64_t> indices(shape);
  std::memset(indices.mutable_data(), 0xff, static_cast<size_t>(indices.nbytes()));
  p.log_probs = log_probs.mutable_data();
  p.indices = indices.mutable_data();
  launch(&launchers::vocab_pick, p, threads);
  return py::make_tuple(log_probs, indices);
}

py::tuple vocab_pick(const py::array& hidden, const py::array& weight, const MaybeArray& bias,
                     int64_t k, const MaybeArray& banned, double temperature, bool panels,
                     int threads) {
  kernels::VocabPickParams p = vocab_params(hidden, weight, bias, banned, temperature);
  p.K = k;
  const std::vector<char> packed = pack(p, panels);
  return run_vocab(p, threads);
}

py::tuple vocab_sample(const py::array& hidden, const py::array& weight, const MaybeArray& bias,
                       int64_t seed, int64_t step, const MaybeArray& rows, const MaybeArray& banned,
                       double temperature, bool panels, int threads) {
  kernels::VocabPickParams p = vocab_params(hidden, weight, bias, banned, temperature);
  const std::vector<char> packed = pack(p, panels);
  p.seed = &seed;
  p.step = &step;
  p.rows = integers<int64_t>(rows, "rows", {p.B});
  return run_vocab(p, threads);
}

}  // namespace

void bind_decode(py::module_& m) {
  using namespace py::literals;
  m.def("attention_step", &attention_step, "query"_a, "keys"_a, "values"_a, py::kw_only(),
        "lengths"_a = py::none(), "score"_a = "dot", "scale"_a = 1.0, "w_query"_a = py::none(),
        "v"_a = py::none(), "threads"_a = 1,
        "query (B, Q), keys (B, S, A), values (B, S, C) -> context (B, C), weights (B, S)");
  m.def("vocab_pick", &vocab_pick, "hidden"_a, "weight"_a, "bias"_a = py::none(), py::kw_only(),
        "k"_a = 1, "banned"_a = py::none(), "temperature"_a = 1.0, "panels"_a = false,
        "threads"_a = 1,
        "hidden (B, H), weight (V, H), bias (V), banned (B, ceil(V/32)) int32 -> "
        "log_probs (B, k), indices (B, k)");
  m.def("vocab_sample", &vocab_sample, "hidden"_a, "weight"_a, "bias"_a = py::none(), py::kw_only(),
        "seed"_a, "step"_a, "rows"_a = py::none(), "banned"_a = py::none(), "temperature"_a = 1.0,
        "panels"_a = false, "threads"_a = 1,
        "As vocab_pick, and rows (B) int64 -> log_probs (B), indices (B)");
}

}  // namespace seq2seq_ext::kernels_python
