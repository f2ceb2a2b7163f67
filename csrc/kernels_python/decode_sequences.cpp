// SPDX-License-Identifier: MIT
// NumPy binding of whole-sequence decoding. Model and sources are dicts by the names of DecodeModel
// and DecodeSources; sizes are read off the arrays.
#include <array>
#include <map>
#include <memory>

#include "cpu/decode/engine.h"
#include "decode_options.h"
#include "launch.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

using kernels::Cell;
using kernels::DecodeContext;

template <class Value>
Value named(const py::dict& d, const char* key, const std::map<std::string, Value>& values) {
  const auto found = values.find(py::cast<std::string>(d[key]));
  if (found == values.end()) throw py::value_error(std::string(key) + ": unknown");
  return found->second;
}

// The array of that name, or nothing where it is None or not there.
MaybeArray maybe(const py::dict& d, const char* key) {
  if (!d.contains(key) || d[key].is_none()) return std::nullopt;
  return py::cast<py::array>(d[key]);
}

py::array array(const py::dict& d, const char* key, int dimensions) {
  const MaybeArray a = maybe(d, key);
  if (!a || a->ndim() != dimensions) {
    throw py::value_error(std::string(key) + ": expected an array of " +
                          std::to_string(dimensions) + " dimensions");
  }
  return *a;
}

// Arrays outlive the call in the dicts that hold them.
struct Model {
  kernels::DecodeModel p{};

  explicit Model(const py::dict& d) {
    p.cell = named<Cell>(d, "cell",
                         {{"lstm", Cell::kLstm},
                          {"gru", Cell::kGru},
                          {"rnn_tanh", Cell::kRnnTanh},
                          {"rnn_relu", Cell::kRnnRelu}});
    p.context = named<DecodeContext>(d, "context",
                                     {{"initial_state", DecodeContext::kInitialState},
                                      {"every_step", DecodeContext::kEveryStep},
                                      {"attention", DecodeContext::kAttention}});
    p.input_feeding = d.contains("input_feeding") && py::cast<bool>(d["input_feeding"]);
    const py::array embedding = array(d, "embedding", 2), output = array(d, "output_weight", 2);
    p.dtype = dtype_of(embedding, "embedding");
    p.num_tokens = embedding.shape(0);
    p.E = embedding.shape(1);
    p.V = output.shape(0);
    p.P = output.shape(1);
    p.H = d.contains("H") ? py::cast<int64_t>(d["H"]) : p.P;
    if (p.V < 1 || p.P < 1 || p.H < p.P)
      throw py::value_error("output_weight: expected V >= 1 and 1 <= P <= H");
    p.embedding = input(embedding, "embedding", p.dtype, {p.num_tokens, p.E});
    p.output_weight = input(output, "output_weight", p.dtype, {p.V, p.P});
    p.output_bias = input(maybe(d, "output_bias"), "output_bias", p.dtype, {p.V});
    set_tokens(d);
    if (p.context == DecodeContext::kEveryStep) p.C = py::cast<int64_t>(d["C"]);
    if (p.context == DecodeContext::kAttention) set_attention(d);
    set_layers(d);
    if (d.contains("screen")) set_screen(py::cast<py::tuple>(d["screen"]));
    if (d.contains("panels") && py::cast<bool>(d["panels"])) pack();
  }

 private:
  void set_tokens(const py::dict& d) {
    const MaybeArray given = maybe(d, "tokens");
    if (!given) {
      if (p.V > p.num_tokens) throw py::value_error("output_weight: more words than tokens");
      return;
    }
    tokens_ = py::cast<Ints>(*given);
    if (tokens_.size() != p.V) throw py::value_error("tokens: expected (V)");
    p.tokens = tokens_.data();
    for (int64_t v = 0; v < p.V; ++v) {
      if (p.tokens[v] < (v == 0 ? 0 : p.tokens[v - 1] + 1) || p.tokens[v] >= p.num_tokens) {
        throw py::value_error("tokens: expected ascending ids of the embedding");
      }
    }
  }

  void set_attention(const py::dict& d) {
    using Score = kernels::AttentionScore;
    p.score = named<Score>(d, "score", {{"dot", Score::kDot}, {"additive", Score::kAdditive}});
    if (d.contains("scale")) p.scale = py::cast<double>(d["scale"]);
    p.C = array(d, "combine_ih", 2).shape(1);
    const MaybeArray query = maybe(d, "w_query"), v = maybe(d, "v");
    p.A = query ? query->shape(0) : p.P;
    if (v.has_value() != (p.score == Score::kAdditive)) throw py::value_error("v: for additive");
    p.w_query = input(query, "w_query", p.dtype, {p.A, p.P});
    p.v = input(v, "v", p.dtype, {p.A});
    p.combine_ih = input(array(d, "combine_ih", 2), "combine_ih", p.dtype, {p.P, p.C});
    p.combine_hh = input(array(d, "combine_hh", 2), "combine_hh", p.dtype, {p.P, p.P});
  }

  void set_layers(const py::dict& d) {
    const int64_t gates = kernels::num_gates(p.cell) * p.H;
    for (const py::handle layer : py::cast<py::list>(d["layers"])) {
      const auto w = py::cast<std::vector<MaybeArray>>(layer);
      int64_t inputs = p.P;
      if (layers_.empty()) {
        inputs =
            p.E + (p.context == DecodeContext::kEveryStep ? p.C : 0) + (p.input_feeding ? p.P : 0);
      }
      const bool projects = p.H != p.P;
      if (w.size() != (projects ? 5u : 4u) || !w[0] || !w[1] || (projects && !w[4]) ||
          w[2].has_value() != w[3].has_value()) {
        throw py::value_error(
            "layers: expected w_ih, w_hh, both biases or none, w_hr of a projection");
      }
      kernels::RecurrentWeights r;
      r.w_ih = input(w[0], "w_ih", p.dtype, {gates, inputs});
      r.w_hh = input(w[1], "w_hh", p.dtype, {gates, p.P});
      r.b_ih = input(w[2], "b_ih", p.dtype, {gates});
      r.b_hh = input(w[3], "b_hh", p.dtype, {gates});
      if (projects) r.w_hr = input(w[4], "w_hr", p.dtype, {p.P, p.H});
      layers_.push_back(r);
    }
    if (layers_.empty()) throw py::value_error("layers: expected one or more");
    p.L = static_cast<int64_t>(layers_.size());
    p.layers = layers_.data();
  }

  // (panels, numbers): as in seq2seq_ext.generation.prepared.Screen.
  void set_screen(const py::tuple& screen) {
    const auto up = [](int64_t size, int64_t to) { return (size + to - 1) / to * to; };
    const int64_t words = up(p.V, kernels::kScreenWords), depth = up(p.P, kernels::kScreenDepth);
    const auto panels = py::cast<py::array>(screen[0]), numbers = py::cast<py::array>(screen[1]);
    const Shape shape{words / 16, depth / 4, 16, 4};
    if (!panels.dtype().is(py::dtype::of<uint8_t>()) || p.dtype == DType::kFloat64 ||
        Shape(panels.shape(), panels.shape() + panels.ndim()) != shape ||
        (panels.flags() & py::array::c_style) == 0) {
      throw py::value_error("screen: expected uint8 of shape " + text(shape));
    }
    const auto* row =
        static_cast<const float*>(input(numbers, "screen", DType::kFloat32, {5, words}));
    p.screen.panels = static_cast<const uint8_t*>(panels.data());
    for (const float** to :
         {&p.screen.scale, &p.screen.residual, &p.screen.norm, &p.screen.slack, &p.screen.bias}) {
      *to = row;
      row += words;
    }
  }

  // The weights in panels; those of a shortlist's output layer and a screened one's are left to the
  // call.
  void pack() {
    const int gates = static_cast<int>(kernels::num_gates(p.cell));
    for (int64_t l = 0; l < p.L; ++l) {
      int64_t inputs = p.P;
      if (l == 0) {
        inputs =
            p.E + (p.context == DecodeContext::kEveryStep ? p.C : 0) + (p.input_feeding ? p.P : 0);
      }
      panels_.push_back({packed(layers_[l].w_ih, gates * p.H, inputs, gates),
                         packed(layers_[l].w_hh, gates * p.H, p.P, gates)});
      if (layers_[l].w_hr != nullptr) panels_.back().hr = packed(layers_[l].w_hr, p.P, p.H, 1);
    }
    p.layer_panels = panels_.data();
    if (p.context == DecodeContext::kAttention) {
      p.combine_panels = {packed(p.combine_ih, p.P, p.C, 1), packed(p.combine_hh, p.P, p.P, 1)};
    }
    if (p.tokens == nullptr && p.screen.panels == nullptr) {
      p.output_panels = packed(p.output_weight, p.V, p.P, 0);
    }
  }

  const void* packed(const void* weight, int64_t N, int64_t K, int gates) {
    packed_.push_back(panels_of({p.dtype, N, K, gates, weight, nullptr}));
    return packed_.back().data();
  }

  Ints tokens_;
  std::vector<kernels::RecurrentWeights> layers_;
  std::vector<kernels::DecodePanels> panels_;
  std::vector<std::vector<char>> packed_;
};

struct Sources {
  kernels::DecodeSources p{};

  Sources(const kernels::DecodeModel& m, const py::dict& d) {
    const auto states = py::cast<std::vector<py::array>>(d["hidden"]);
    if (static_cast<int64_t>(states.size()) != m.L) throw py::value_error("hidden: one a layer");
    p.B = states[0].shape(0);
    for (const py::array& h : states) hidden_.push_back(input(h, "hidden", m.dtype, {p.B, m.P}));
    if (m.cell == Cell::kLstm) {
      for (const py::array& c : py::cast<std::vector<py::array>>(d["cells"])) {
        cells_.push_back(input(c, "cells", state_of(m.dtype), {p.B, m.H}));
      }
      if (cells_.size() != hidden_.size()) throw py::value_error("cells: one a layer");
    }
    p.hidden = hidden_.data();
    p.cells = cells_.data();
    if (m.context == DecodeContext::kEveryStep) {
      p.context = input(array(d, "context", 2), "context", m.dtype, {p.B, m.C});
    }
    if (m.context != DecodeContext::kAttention) return;
    const py::array keys = array(d, "keys", 3);
    p.S = keys.shape(1);
    p.keys = input(keys, "keys", m.dtype, {p.B, p.S, m.A});
    p.values = input(array(d, "values", 3), "values", m.dtype, {p.B, p.S, m.C});
    p.lengths = input_lengths(maybe(d, "lengths"), p.B, p.S);
  }

 private:
  std::vector<const void*> hidden_, cells_;
};

template <class T>
py::array_t<T> packed(const std::vector<T>& values, const Shape& shape) {
  py::array_t<T> a(shape);
  if (static_cast<size_t>(a.size()) != values.size()) throw std::logic_error("a result's size");
  std::copy(values.begin(), values.end(), a.mutable_data());
  return a;
}

// A model and its sources, of an ensemble.
struct Member {
  Model model;
  Sources sources;

  explicit Member(const py::tuple& named)
      : model(py::cast<py::dict>(named[0])), sources(model.p, py::cast<py::dict>(named[1])) {}
};

py::dict decode_sequences(const py::dict& model_names, const py::dict& source_names, int threads,
                          const py::list& more, bool scores, const py::kwargs& option_names) {
  using namespace py::literals;
  const Model model(model_names);
  const Sources sources(model.p, source_names);
  std::vector<std::unique_ptr<Member>> others;
  std::vector<kernels::DecodeMember> members{{&model.p, &sources.p}};
  bool wide = model.p.dtype == DType::kFloat64;
  for (const py::handle other : more) {
    others.push_back(std::make_unique<Member>(py::cast<py::tuple>(other)));
    members.push_back({&others.back()->model.p, &others.back()->sources.p});
    wide = wide || others.back()->model.p.dtype == DType::kFloat64;
  }
  NamedOptions options(option_names);
  kernels::DecodeResult found;
  std::vector<double> kept;
  std::vector<float> kept_single;
  if (scores) {
    options.values.make_scores = [&](int64_t T) -> void* {
      const int64_t count = sources.p.B * options.values.results * T * model.p.num_tokens;
      if (!wide) return kept_single.resize(count), kept_single.data();
      return kept.resize(count), kept.data();
    };
  }
  {
    py::gil_scoped_release release;
    const kernels::Runtime runtime = kernels::default_runtime(threads);
    const kernels::Status status =
        kernels::cpu::decode_sequences(members, options.values, runtime, &found);
    py::gil_scoped_acquire acquire;
    expect_ok(status);
  }
  const int64_t R = sources.p.B * options.values.results, T = found.T, S = sources.p.S;
  py::dict out("lengths"_a = packed(found.lengths, {R}), "tokens"_a = packed(found.tokens, {R, T}),
               "log_probs"_a = packed(found.log_probs, {R, T}),
               "ranks"_a = packed(found.ranks, {R}),
               "undefined"_a = py::make_tuple(found.undefined_source, found.undefined_step));
  if (options.values.attentions) out["attentions"] = packed(found.attentions, {R, T, S});
  if (scores) {
    const Shape shape{R, T, model.p.num_tokens};
    if (wide) {
      out["scores"] = packed(kept, shape);
    } else {
      out["scores"] = packed(kept_single, shape);
    }
  }
  return out;
}

}  // namespace

void bind_decode_sequences(py::module_& m) {
  using namespace py::literals;
  m.def(
      "decode_sequences", &decode_sequences, "model"_a, "sources"_a, "threads"_a = 1,
      "more"_a = py::list(), "scores"_a = false,
      "-> lengths (R), tokens (R, T), log_probs (R, T), ranks (R), undefined (source, step), "
      "attentions (R, T, S) and scores (R, T, num_tokens) where asked for. more: (model, sources) "
      "of the other models of an ensemble");
}

}  // namespace seq2seq_ext::kernels_python
