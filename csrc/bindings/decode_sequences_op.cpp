// SPDX-License-Identifier: MIT
// `decode`: whole sequences in one call. The arguments are those of
// seq2seq_ext/generation/native.py, which is where their order is written down, too. What runs is
// in cpu_decode.cpp and in cuda_decode.cpp.
#include <algorithm>
#include <memory>

#include "decode_call.h"
#include "recurrent_arguments.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

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

const void* data(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

const int64_t* integers(const OptionalTensor& tensor) {
  return static_cast<const int64_t*>(data(tensor));
}

constexpr const char* kLayer = "w_ih, w_hh, [b_ih, b_hh], [w_hr] of each layer";

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

// counts: slots, results, max_new_tokens, min_new_tokens, start token, no_repeat_ngram_size, top_k,
// seed (its bits), early_stopping (0 False, 1 True, 2 never), groups, attentions, states, scores.
// numbers: repetition_penalty, temperature, top_p, min_p, length_penalty, coverage_penalty,
// diversity_penalty.
// phrases: the length of each, then its tokens.
kernels::DecodeOptions options_of(const std::string& mode, const Integers& counts,
                                  const std::vector<double>& numbers, const Integers& eos,
                                  const Integers& banned, const Integers& phrases) {
  kernels::DecodeOptions o;
  o.mode = named<DecodeMode>("mode", mode,
                             {{"greedy", DecodeMode::kGreedy},
                              {"sample", DecodeMode::kSample},
                              {"beam", DecodeMode::kBeam},
                              {"given", DecodeMode::kGiven}});
  if (counts.size() != 13) fail("counts", std::to_string(counts.size()) + " numbers", 13);
  if (numbers.size() != 7) fail("numbers", std::to_string(numbers.size()) + " numbers", 7);
  o.slots = counts[0];
  o.results = counts[1];
  o.max_new_tokens = counts[2];
  o.min_new_tokens = counts[3];
  o.start_token = counts[4];
  o.no_repeat_ngram_size = counts[5];
  o.top_k = counts[6];
  o.seed = static_cast<uint64_t>(counts[7]);
  o.early_stopping = static_cast<kernels::DecodeOptions::EarlyStopping>(counts[8]);
  o.groups = counts[9];
  o.attentions = counts[10] != 0;
  o.states = counts[11] != 0;
  o.repetition_penalty = numbers[0];
  o.temperature = numbers[1];
  o.top_p = numbers[2];
  o.min_p = numbers[3];
  o.length_penalty = numbers[4];
  o.coverage_penalty = numbers[5];
  o.diversity_penalty = numbers[6];
  const bool counted = o.slots >= 1 && o.results >= 1 && o.max_new_tokens >= 1 && o.groups >= 1 &&
                       o.slots % o.groups == 0 && counts[8] >= 0 && counts[8] <= 2 &&
                       o.results <= o.slots && o.top_k >= 0;
  if (!counted) fail("counts", "others", "numbers in their ranges");
  if (!(o.temperature > 0) || !(o.repetition_penalty > 0)) {
    fail("numbers", "others", "a positive temperature and repetition_penalty");
  }
  o.eos = eos;
  o.banned = banned;
  std::sort(o.eos.begin(), o.eos.end());
  std::sort(o.banned.begin(), o.banned.end());
  for (size_t i = 0; i < phrases.size();) {
    const auto length = static_cast<size_t>(std::max<int64_t>(phrases[i], 0));
    if (length < 2 || i + 1 + length > phrases.size()) {
      fail("phrases", "others", "lengths of 2 and more, each before its tokens");
    }
    o.phrases.emplace_back(phrases.begin() + i + 1, phrases.begin() + i + 1 + length);
    i += 1 + length;
  }
  return o;
}

void expect_tokens(const int64_t* tokens, int64_t count, int64_t low, int64_t end,
                   const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] < low || tokens[i] >= end) {
      fail(name, std::to_string(tokens[i]), "ids in [", low, ", ", end, ")");
    }
  }
}

// The caller's functions, by their addresses (ctypes); they take the GIL themselves.
using OnStep = bool (*)(const kernels::DecodeStep* step);
using GoOn = bool (*)();

// Each source's own tokens.
void set_shortlist(Model& model, const Tensor& shortlist, const OptionalTensor& starts, int64_t B,
                   kernels::DecodeOptions* o) {
  if (model.p.tokens != nullptr) fail("shortlist", "a tensor", "None beside `tokens`");
  if (!starts) fail("shortlist_starts", "None", "a tensor");
  expect_dims(shortlist, 1, "shortlist", "n");
  const int64_t count = shortlist.size(0);
  o->shortlist = model.integers_of(shortlist, "shortlist", {count});
  o->shortlist_starts = model.integers_of(*starts, "shortlist_starts", {B + 1});
  if (!shortlist.is_cpu()) return;
  int64_t last = 0;
  for (int64_t b = 0; b <= B; ++b) {
    const int64_t start = o->shortlist_starts[b];
    if ((b == 0 ? start != 0 : start <= last) || start > count) {
      fail("shortlist_starts", std::to_string(start), "ascending numbers from 0 to ", count);
    }
    for (int64_t i = last; i < start; ++i) {
      const int64_t low = i == last ? 0 : o->shortlist[i - 1] + 1, token = o->shortlist[i];
      if (token < low || token >= model.p.V) {
        fail("shortlist", std::to_string(token), "ascending ids below ", model.p.V);
      }
    }
    last = start;
  }
}

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

using DecodedAndScores =
    decltype(std::tuple_cat(std::declval<Decoded>(), std::declval<std::tuple<Tensor>>()));

// Among the dtypes of an ensemble's models.
int width_of(const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  return type == ScalarType::Double ? 3 : type == ScalarType::Float ? 2 : 1;
}

DecodedAndScores decode(const std::string& cell, const std::string& context, bool input_feeding,
                        const Tensor& embedding, const Tensors& layers, const Tensors& attention,
                        bool additive, double scale, const Tensor& output_weight,
                        const OptionalTensor& output_bias, const OptionalTensor& tokens,
                        const OptionalTensor& screen, const OptionalTensor& screen_numbers,
                        const Tensors& panels, const OptionalTensor& output_panels,
                        const Tensors& hidden, const Tensors& cells, const OptionalTensor& keys,
                        const OptionalTensor& values, const OptionalTensor& source_context,
                        const OptionalTensor& lengths, const std::string& mode,
                        const Integers& counts, const std::vector<double>& numbers,
                        const Integers& eos, const Integers& banned, const Integers& phrases,
                        const OptionalTensor& allowed, const OptionalTensor& prefix,
                        const OptionalTensor& row_ids, const OptionalTensor& given,
                        const OptionalTensor& given_lengths, int64_t on_step,
                        const OptionalTensor& shortlist, const OptionalTensor& shortlist_starts,
                        int64_t go_on, const Tensors& more_tensors, const Integers& more_layout,
                        const std::vector<double>& more_scales, bool mean_of_logs) {
  expect_supported_dtype(embedding, "embedding");
  Model model(cell, context, input_feeding, embedding, layers, attention, additive, scale,
              output_weight, output_bias, tokens);
  if (screen) model.set_screen(*screen, screen_numbers);
  if (screen && panels.empty()) fail("panels", "0 tensors", "those of all layers beside a screen");
  model.set_panels(panels, output_panels);
  const Sources sources(model, hidden, cells, keys, values, source_context, lengths);
  kernels::DecodeOptions o = options_of(mode, counts, numbers, eos, banned, phrases);
  const int64_t B = sources.p.B, V = model.p.V, num_tokens = model.p.num_tokens;
  expect_tokens(&o.start_token, 1, 0, num_tokens, "counts (start token)");
  OptionalTensor mask;
  if (allowed) {
    if (allowed->scalar_type() != ScalarType::Bool) {
      fail("allowed", dtype_text(allowed->scalar_type()), "dtype bool");
    }
    expect_device(*allowed, embedding, "allowed", "embedding");
    o.allowed_rows = allowed->dim() == 2 && allowed->size(0) == 1 ? 1 : B;
    expect_shape(*allowed, {o.allowed_rows, V}, "allowed");
    mask = as_contiguous(*allowed);
    o.allowed = static_cast<const uint8_t*>(mask->const_data_ptr());
  }
  if (prefix) {
    expect_dims(*prefix, 2, "prefix", "B, n");
    o.prefix_size = prefix->size(1);
    o.prefix = model.integers_of(*prefix, "prefix", {B, o.prefix_size});
    if (prefix->is_cpu()) {
      expect_tokens(o.prefix, B * o.prefix_size, -1, num_tokens, "prefix");
    }
  }
  if (row_ids) o.row_ids = model.integers_of(*row_ids, "row_ids", {B});
  if (o.mode == DecodeMode::kGiven) {
    if (!given || !given_lengths) fail("given", "None", "tensors for given and given_lengths");
    expect_dims(*given, 2, "given", "B, n");
    o.given_size = given->size(1);
    o.given = model.integers_of(*given, "given", {B, o.given_size});
    o.given_lengths = model.integers_of(*given_lengths, "given_lengths", {B});
    if (given->is_cpu()) {
      expect_tokens(o.given, B * o.given_size, 0, num_tokens, "given");
      expect_tokens(o.given_lengths, B, 0, o.given_size + 1, "given_lengths");
    }
  }
  if (o.attentions && model.p.context != DecodeContext::kAttention) {
    fail("counts (attentions)", "1", "0 with context '", context, "'");
  }
  if (on_step != 0) {
    o.on_step_context = reinterpret_cast<void*>(on_step);
    o.on_step = [](const kernels::DecodeStep& step, void* function) {
      return reinterpret_cast<OnStep>(function)(&step);
    };
  }
  if (go_on != 0) {
    o.go_on_context = reinterpret_cast<void*>(go_on);
    o.go_on = [](void* function) { return reinterpret_cast<GoOn>(function)(); };
  }
  const MoreModels more(more_tensors, more_layout, more_scales, tokens, lengths);
  more.expect_like(model.p, sources.p);
  if (!more.models.empty() && (!embedding.is_cpu() || o.states)) {
    fail("more", std::to_string(more.models.size()) + " models",
         "none on a GPU, and none where states are kept");
  }
  o.mean_of_logs = mean_of_logs;
  const Tensor* like = &model.embedding;
  std::vector<kernels::DecodeMember> others;
  for (size_t m = 0; m < more.models.size(); ++m) {
    others.push_back({&more.models[m]->p, &more.sources[m]->p});
    const Tensor& other = more.models[m]->embedding;
    if (width_of(other) > width_of(*like)) like = &other;
    const bool attends = others.back().model->context == DecodeContext::kAttention;
    if ((o.attentions || o.coverage_penalty != 0) &&
        (!attends || others.back().sources->S != sources.p.S)) {
      fail("more", "others", "models with attention over as many positions");
    }
  }
  if (shortlist) set_shortlist(model, *shortlist, shortlist_starts, B, &o);
  Tensor scores = nothing(embedding);
  if (counts[12] != 0) {
    o.make_scores = [&](int64_t T) {
      scores = allocate(*like, {B * o.results, T, num_tokens}, state_type(like->scalar_type()));
      return scores.mutable_data_ptr();
    };
  }
  const Decoded found = backend::decode({model.p, sources.p, o, *like, others});
  return std::tuple_cat(found, std::make_tuple(scores));
}

}  // namespace

void register_decode_sequences(Library& m) { m.impl("decode", TORCH_BOX(&decode)); }

}  // namespace seq2seq_ext::bindings
