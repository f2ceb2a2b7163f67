// SPDX-License-Identifier: MIT
// The models and the encoded sentences among the arguments of the op `decode`: checked, and kept as
// long as they are used.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "decode_call.h"
#include "recurrent_arguments.h"
#include "tensors.h"

namespace seq2seq_ext::bindings::decode_arguments {

using kernels::Cell;
using kernels::DecodeContext;
using kernels::DecodeMode;
using Tensors = std::vector<Tensor>;
using OptionalTensor = std::optional<Tensor>;
using Integers = std::vector<int64_t>;

template <class Value>
Value named(const char* argument, const std::string& name,
            std::initializer_list<std::pair<const char*, Value>> values) {
  std::string known;
  for (const auto& [text, value] : values) {
    if (name == text) return value;
    known += (known.empty() ? "'" : ", '") + std::string(text) + "'";
  }
  fail(argument, "'" + name + "'", "one of ", known);
}

inline const void* data(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

inline const int64_t* integers(const OptionalTensor& tensor) {
  return static_cast<const int64_t*>(data(tensor));
}

inline constexpr const char* kLayer = "w_ih, w_hh, [b_ih, b_hh], [w_hr] of each layer";

// The model, checked, and what has to live as long as it is used.
class Model {
 public:
  Model(const std::string& cell, const std::string& context, bool input_feeding,
        const Tensor& embedding_given, const Tensors& layers, const Tensors& attention,
        bool additive, double scale, const Tensor& output_weight, const OptionalTensor& output_bias,
        const OptionalTensor& tokens)
      : embedding(keep(embedding_given)) {
    expect_first(embedding, 2, "embedding", "V, E");
    p.cell = named<Cell>("cell", cell,
                         {{"lstm", Cell::kLstm},
                          {"gru", Cell::kGru},
                          {"tanh", Cell::kRnnTanh},
                          {"relu", Cell::kRnnRelu}});
    p.context = named<DecodeContext>("context", context,
                                     {{"initial_state", DecodeContext::kInitialState},
                                      {"every_step", DecodeContext::kEveryStep},
                                      {"attention", DecodeContext::kAttention}});
    p.dtype = kernel_dtype(embedding);
    p.input_feeding = input_feeding;
    p.num_tokens = embedding.size(0);
    p.E = embedding.size(1);
    p.embedding = embedding.const_data_ptr();
    p.scale = scale;
    p.score = additive ? kernels::AttentionScore::kAdditive : kernels::AttentionScore::kDot;
    set_output(output_weight, output_bias, tokens);
    if (p.context == DecodeContext::kAttention) set_attention(attention, additive);
    if (input_feeding && p.context != DecodeContext::kAttention) {
      fail("input_feeding", "True", "False with context '", context, "'");
    }
    set_layers(layers);
  }

  kernels::DecodeModel p{};

  void set_screen(const Tensor& panels, const OptionalTensor& numbers) {
    const auto up = [](int64_t size, int64_t to) { return (size + to - 1) / to * to; };
    const int64_t words = up(p.V, kernels::kScreenWords), depth = up(p.P, kernels::kScreenDepth);
    if (panels.scalar_type() != ScalarType::Byte) fail("screen", "others", "dtype uint8");
    expect_shape(panels, {words / 16, depth / 4, 16, 4}, "screen");
    if (!numbers || numbers->scalar_type() != ScalarType::Float) {
      fail("screen_numbers", "others", "a float32 tensor");
    }
    expect_shape(*numbers, {5, words}, "screen_numbers");
    if (p.dtype == kernels::DType::kFloat64 || p.P > (1 << 15)) {
      fail("screen", "others", "float32 or bfloat16 weights, and P <= 32768");
    }
    const float* row = static_cast<const float*>(keep(*numbers).const_data_ptr());
    p.screen.panels = static_cast<const uint8_t*>(keep(panels).const_data_ptr());
    for (const float** to :
         {&p.screen.scale, &p.screen.residual, &p.screen.norm, &p.screen.slack, &p.screen.bias}) {
      *to = row;
      row += words;
    }
  }

  // recurrent: ih, hh and, with a projection, hr of each layer; then ih and hh of combine_*.
  void set_panels(const Tensors& recurrent, const OptionalTensor& output) {
    if (recurrent.empty() && !output) return;
    const bool attends = p.context == DecodeContext::kAttention;
    const bool projects = p.layers[0].w_hr != nullptr;
    const int64_t count = p.L * (projects ? 3 : 2) + (attends ? 2 : 0);
    if (static_cast<int64_t>(recurrent.size()) != count) {
      fail("panels", std::to_string(recurrent.size()) + " tensors", "0 or ", count);
    }
    int i = 0;
    const auto next = [&](int64_t units, int64_t K, int gates, const char* what) {
      const Tensor& given = recurrent[i];
      expect_panels(given, embedding, "embedding", gates * units, K, gates, {"panels", i, what});
      ++i;
      return keep(given).const_data_ptr();
    };
    for (int64_t l = 0; l < p.L; ++l) {
      const int gates = static_cast<int>(kernels::num_gates(p.cell));
      kernels::DecodePanels layer;
      layer.ih = next(p.H, l == 0 ? inputs_ : p.P, gates, "ih");
      layer.hh = next(p.H, p.P, gates, "hh");
      if (projects) layer.hr = next(p.P, p.H, 1, "hr");
      panels_.push_back(layer);
    }
    if (attends) {
      p.combine_panels.ih = next(p.P, p.C, 1, "ih");
      p.combine_panels.hh = next(p.P, p.P, 1, "hh");
    }
    p.layer_panels = panels_.data();
    if (!output) return;
    expect_panels(*output, embedding, "embedding", p.V, p.P, 0, "output_panels");
    p.output_panels = keep(*output).const_data_ptr();
  }

  // As it is used: like the embedding, contiguous.
  const Tensor& like(const Tensor& tensor, const Name& name, std::initializer_list<int64_t> shape) {
    expect_like(tensor, embedding, name, "embedding");
    expect_shape(tensor, shape, name);
    return keep(tensor);
  }

 private:
  void set_output(const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& tokens) {
    expect_dims(weight, 2, "output_weight", "V, P");
    p.V = weight.size(0);
    p.P = weight.size(1);
    if (p.V < 1) fail("output_weight", shape_of(weight), "V >= 1");
    p.output_weight = like(weight, "output_weight", {p.V, p.P}).const_data_ptr();
    if (bias) p.output_bias = like(*bias, "output_bias", {p.V}).const_data_ptr();
    if (!tokens) {
      if (p.V > p.num_tokens) {
        fail("output_weight", shape_of(weight), "at most ", p.num_tokens, " rows");
      }
      return;
    }
    p.tokens = integers_of(*tokens, "tokens", {p.V});
    for (int64_t v = 0; embedding.is_cpu() && v < p.V; ++v) {
      const int64_t low = v == 0 ? 0 : p.tokens[v - 1] + 1;
      if (p.tokens[v] < low || p.tokens[v] >= p.num_tokens) {
        fail("tokens", std::to_string(p.tokens[v]), "ascending ids below ", p.num_tokens);
      }
    }
  }

  void set_attention(const Tensors& attention, bool additive) {
    const size_t least = additive ? 4 : 2;
    if (attention.size() != least && attention.size() != (additive ? 4 : 3)) {
      fail("attention", std::to_string(attention.size()) + " tensors",
           "combine_ih, combine_hh, [w_query], [v]");
    }
    expect_dims(attention[0], 2, "attention[0] (combine_ih)", "P, C");
    p.C = attention[0].size(1);
    p.A = p.P;
    p.combine_ih = like(attention[0], "attention[0] (combine_ih)", {p.P, p.C}).const_data_ptr();
    p.combine_hh = like(attention[1], "attention[1] (combine_hh)", {p.P, p.P}).const_data_ptr();
    if (attention.size() > 2) {
      expect_dims(attention[2], 2, "attention[2] (w_query)", "A, P");
      p.A = attention[2].size(0);
      p.w_query = like(attention[2], "attention[2] (w_query)", {p.A, p.P}).const_data_ptr();
    }
    if (additive) p.v = like(attention[3], "attention[3] (v)", {p.A}).const_data_ptr();
  }

  void set_layers(const Tensors& weights) {
    if (weights.size() < 2) fail("layers", std::to_string(weights.size()) + " tensors", kLayer);
    expect_dims(weights[0], 2, "layers[0] (w_ih)", "G*H, I");
    p.H = weights[0].size(0) / kernels::num_gates(p.cell);
    const bool projects = p.cell == Cell::kLstm && p.H > p.P;
    if (!projects) p.H = p.P;
    const int64_t gates = kernels::num_gates(p.cell) * p.H;
    const bool biases = weights.size() > 2 && weights[2].dim() == 1;
    const size_t per = (biases ? 4 : 2) + (projects ? 1 : 0);
    if (weights.size() % per != 0) {
      fail("layers", std::to_string(weights.size()) + " tensors", kLayer);
    }
    p.L = static_cast<int64_t>(weights.size() / per);
    for (int64_t l = 0; l < p.L; ++l) {
      const Tensor* w = &weights[l * per];
      int64_t inputs = p.P;
      if (l == 0) {
        inputs = w[0].size(1);
        const int64_t extra = inputs - p.E;
        if (p.context == DecodeContext::kEveryStep && extra > 0) p.C = extra;
        const int64_t expected =
            p.E + (p.context == DecodeContext::kEveryStep ? p.C : 0) + (p.input_feeding ? p.P : 0);
        inputs_ = expected;
        if (inputs != expected) fail("layers[0] (w_ih)", shape_of(w[0]), expected, " columns");
      }
      int index = static_cast<int>(l * per);
      const auto next = [&](const char* name, std::initializer_list<int64_t> shape) {
        const Name full{"layers", index, name};
        return like(weights[index++], full, shape).const_data_ptr();
      };
      kernels::RecurrentWeights layer;
      layer.w_ih = next("w_ih", {gates, inputs});
      layer.w_hh = next("w_hh", {gates, p.P});
      if (biases) {
        layer.b_ih = next("b_ih", {gates});
        layer.b_hh = next("b_hh", {gates});
      }
      if (projects) layer.w_hr = next("w_hr", {p.P, p.H});
      layers_.push_back(layer);
    }
    p.layers = layers_.data();
  }

  const Tensor& keep(const Tensor& tensor) {
    kept_.push_back(std::make_unique<Tensor>(as_contiguous(tensor)));
    return *kept_.back();
  }

 public:
  const int64_t* integers_of(const Tensor& tensor, const Name& name,
                             std::initializer_list<int64_t> shape) {
    if (tensor.scalar_type() != ScalarType::Long) {
      fail(name, dtype_text(tensor.scalar_type()), "dtype int64");
    }
    expect_device(tensor, embedding, name, "embedding");
    expect_shape(tensor, shape, name);
    return static_cast<const int64_t*>(keep(tensor).const_data_ptr());
  }

 private:
  std::vector<std::unique_ptr<Tensor>> kept_;
  std::vector<kernels::RecurrentWeights> layers_;
  std::vector<kernels::DecodePanels> panels_;
  int64_t inputs_ = 0;  // of the first layer

 public:
  const Tensor& embedding;
};

// The encoded sentences.
struct Sources {
  kernels::DecodeSources p{};
  std::vector<const void*> hidden, cells;
  OptionalTensor lengths;

  Sources(Model& model, const Tensors& hidden_given, const Tensors& cells_given,
          const OptionalTensor& keys, const OptionalTensor& values, const OptionalTensor& context,
          const OptionalTensor& lengths_given) {
    const auto& m = model.p;
    const bool lstm = m.cell == Cell::kLstm;
    if (static_cast<int64_t>(hidden_given.size()) != m.L) {
      fail("hidden", std::to_string(hidden_given.size()) + " tensors", m.L, ", one a layer");
    }
    if (cells_given.size() != (lstm ? hidden_given.size() : 0)) {
      fail("cells", std::to_string(cells_given.size()) + " tensors", lstm ? m.L : 0);
    }
    expect_dims(hidden_given[0], 2, "hidden[0]", "B, P");
    p.B = hidden_given[0].size(0);
    for (int64_t l = 0; l < m.L; ++l) {
      const int index = static_cast<int>(l);
      hidden.push_back(
          model.like(hidden_given[l], {"hidden", index, nullptr}, {p.B, m.P}).const_data_ptr());
      if (!lstm) continue;
      const Tensor& cell = cells_given[l];
      if (cell.scalar_type() != state_type(model.embedding.scalar_type())) {
        fail({"cells", index, nullptr}, dtype_text(cell.scalar_type()), "dtype ",
             dtype_text(state_type(model.embedding.scalar_type())));
      }
      expect_device(cell, model.embedding, {"cells", index, nullptr}, "embedding");
      expect_shape(cell, {p.B, m.H}, {"cells", index, nullptr});
      owned_.push_back(as_contiguous(cell));
    }
    for (const Tensor& cell : owned_) cells.push_back(cell.const_data_ptr());
    p.hidden = hidden.data();
    p.cells = cells.data();
    if (m.context == DecodeContext::kAttention) {
      if (!keys || !values) fail("keys", "None", "tensors for keys and values");
      expect_dims(*keys, 3, "keys", "B, S, A");
      p.S = keys->size(1);
      if (p.S < 1) fail("keys", shape_of(*keys), "S >= 1");
      p.keys = model.like(*keys, "keys", {p.B, p.S, m.A}).const_data_ptr();
      p.values = model.like(*values, "values", {p.B, p.S, m.C}).const_data_ptr();
      lengths = checked_lengths(lengths_given, model.embedding, "embedding", p.B, p.S);
      p.lengths = integers(lengths);
    }
    if (m.context == DecodeContext::kEveryStep) {
      if (!context) fail("source_context", "None", "a tensor");
      p.context = model.like(*context, "source_context", {p.B, m.C}).const_data_ptr();
    }
  }

 private:
  std::vector<Tensor> owned_;
};

// The other models of an ensemble, each as so many numbers and tensors in the order of Model's and
// Sources' arguments: cell and context (their places in those lists), input_feeding, additive; how
// many tensors are layers and attention, whether there is an output_bias; how many are hidden and
// cells; whether there are keys and values, and a source_context; how many
// are panels, whether there are output_panels.
class MoreModels {
 public:
  static constexpr int64_t kNumbers = 13;

  MoreModels(const Tensors& tensors, const Integers& layout, const std::vector<double>& scales,
             const OptionalTensor& tokens, const OptionalTensor& lengths)
      : tensors_(tensors) {
    static const char* const kCells[] = {"lstm", "gru", "tanh", "relu"};
    static const char* const kContexts[] = {"initial_state", "every_step", "attention"};
    if (layout.size() != kNumbers * scales.size()) {
      fail("more_layout", std::to_string(layout.size()) + " numbers", kNumbers, " a model");
    }
    for (size_t m = 0; m < scales.size(); ++m) {
      const int64_t* const n = layout.data() + m * kNumbers;
      if (n[0] < 0 || n[0] > 3 || n[1] < 0 || n[1] > 2) {
        fail("more_layout", "others", "a cell from 0 to 3 and a context from 0 to 2");
      }
      const Tensor embedding = take(1)[0];
      const Tensors layers = take(n[4]), attention = take(n[5]), output = take(1);
      models.push_back(std::make_unique<Model>(kCells[n[0]], kContexts[n[1]], n[2] != 0, embedding,
                                               layers, attention, n[3] != 0, scales[m], output[0],
                                               maybe(n[6]), tokens));
      const Tensors panels = take(n[11]);
      const OptionalTensor output_panels = maybe(n[12]);
      models.back()->set_panels(panels, output_panels);
      const Tensors hidden = take(n[7]), cells = take(n[8]);
      const OptionalTensor keys = maybe(n[9]), values = maybe(n[9]);
      sources.push_back(std::make_unique<Sources>(*models.back(), hidden, cells, keys, values,
                                                  maybe(n[10]), lengths));
    }
    if (next_ != tensors_.size()) {
      fail("more", std::to_string(tensors_.size()) + " tensors", next_);
    }
  }

  // What the first model has, the others have to have.
  void expect_like(const kernels::DecodeModel& model, const kernels::DecodeSources& first) const {
    for (size_t m = 0; m < models.size(); ++m) {
      const auto& other = models[m]->p;
      if (other.V != model.V || other.num_tokens != model.num_tokens ||
          sources[m]->p.B != first.B) {
        fail("more", "others", "models with the first one's words, tokens and rows");
      }
    }
  }

  std::vector<std::unique_ptr<Model>> models;
  std::vector<std::unique_ptr<Sources>> sources;

 private:
  Tensors take(int64_t count) {
    if (count < 0 || next_ + count > tensors_.size()) {
      fail("more", std::to_string(tensors_.size()) + " tensors", "as many as more_layout says");
    }
    const auto first = tensors_.begin() + static_cast<int64_t>(next_);
    next_ += count;
    return {first, first + count};
  }
  OptionalTensor maybe(int64_t there) {
    if (there == 0) return std::nullopt;
    return take(1)[0];
  }

  const Tensors& tensors_;
  size_t next_ = 0;
};

}  // namespace seq2seq_ext::bindings::decode_arguments
