// SPDX-License-Identifier: MIT
// A model to decode with, its sources, and the options of a call.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench.h"
#include "common/decode.h"

namespace seq2seq_ext::kernel_bench {

using kernels::Cell;
using kernels::DecodeContext;
using kernels::DecodeMode;
using kernels::DecodeModel;
using kernels::DecodeOptions;
using kernels::DecodeSources;

template <class Value>
Value named(Arguments& args, const std::string& name, const std::string& otherwise,
            const std::map<std::string, Value>& values) {
  const auto found = values.find(args.text(name, otherwise));
  if (found == values.end()) throw std::invalid_argument(name + ": none of those there are");
  return found->second;
}

// A model and its sources, and pointers to them for either device. Numbers are as they are on the
// device, in the dtype; the CPU computes in it, too.
struct Decoder {
  Bench& bench;
  const DType dtype, state;
  const Cell cell;
  const DecodeContext context;
  const bool feed, additive;
  const int64_t L, B, E, H, P, C, A, S, V, num_tokens;
  const int64_t inputs;
  Array embedding, output, bias, combine_ih, combine_hh, query, v, keys, values, every;
  std::vector<Array> layers, hidden, cells;
  Integers<int64_t> lengths;

  explicit Decoder(Bench& b)
      : bench(b),
        dtype(b.args.dtype()),
        state(dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32),
        cell(named<Cell>(b.args, "cell", "lstm",
                         {{"lstm", Cell::kLstm}, {"gru", Cell::kGru}, {"tanh", Cell::kRnnTanh}})),
        context(named<DecodeContext>(b.args, "context", "attention",
                                     {{"attention", DecodeContext::kAttention},
                                      {"every_step", DecodeContext::kEveryStep},
                                      {"initial", DecodeContext::kInitialState}})),
        feed(b.args.flag("feed") && context == DecodeContext::kAttention),
        additive(b.args.flag("additive")),
        L(b.args.size("L", 1)),
        B(b.args.size("B", 3)),
        E(b.args.size("E", 9)),
        H(b.args.size("H", 12)),
        P(b.args.size("P", H)),
        C(b.args.size("C", 10)),
        A(b.args.size("A", 7)),
        S(b.args.size("S", 5)),
        V(b.args.size("V", 140)),
        num_tokens(V + (b.args.flag("shortlist") ? 20 : 0)),
        inputs(E + (context == DecodeContext::kEveryStep ? C
                    : feed                               ? P
                                                         : 0)),
        embedding(some(num_tokens * E, 1)),
        output(some(V * P, 4, P)),
        bias(some(V, 1)),
        combine_ih(some(P * C, 1, C)),
        combine_hh(some(P * P, 1, P)),
        query(some(A * P, 1, P)),
        v(some(A, 1)),
        keys(some(B * S * A, 1)),
        values(some(B * S * C, 1)),
        every(some(B * C, 1)),
        lengths(source_lengths()) {
    const int64_t gates = kernels::num_gates(cell) * H;
    for (int64_t l = 0; l < L; ++l) {
      const int64_t width = l == 0 ? inputs : P;
      layers.push_back(some(gates * width, 1, width));
      layers.push_back(some(gates * P, 1, P));
      layers.push_back(some(gates, 0.5));
      layers.push_back(some(gates, 0.5));
      layers.push_back(some(P == H ? 0 : P * H, 1, H));
      hidden.push_back(some(B * P, 1));
      cells.push_back(bench.normal(state, B * H));
    }
  }

  // Of a product over `width`, such that errors do not grow from step to step.
  Array some(int64_t count, double scale, int64_t width = 1) {
    return bench.normal(dtype, count, scale / std::sqrt(double(width)));
  }
  std::vector<int64_t> source_lengths() {
    std::vector<int64_t> given(B);
    for (int64_t b = 0; b < B; ++b) given[b] = b == 0 ? S : int64_t(bench.random() % (S + 1));
    return given;
  }

  // A step reads so many; of the embedding a row.
  double weights() const {
    double count = double(V) * P + E;
    for (int64_t l = 0; l < L; ++l) {
      count += double(kernels::num_gates(cell)) * H * ((l == 0 ? inputs : P) + P);
      count += P == H ? 0 : double(P) * H;
    }
    return context == DecodeContext::kAttention ? count + double(P) * (A + C + P) : count;
  }

  // Pointers by `data`: of an Array, and of lengths.
  struct Pointers {
    DecodeModel model{};
    DecodeSources sources{};
    std::vector<kernels::RecurrentWeights> layers;
    std::vector<const void*> hidden, cells;
  };
  template <class Data>
  void point(Pointers* to, const Data& data) const {
    DecodeModel& m = to->model;
    m.cell = cell, m.dtype = dtype, m.context = context;
    m.L = L, m.E = E, m.H = H, m.P = P, m.V = V, m.num_tokens = num_tokens, m.A = A, m.C = C;
    m.input_feeding = feed;
    m.score = additive ? kernels::AttentionScore::kAdditive : kernels::AttentionScore::kDot;
    m.scale = 0.5;
    m.embedding = data(embedding);
    m.w_query = data(query);
    m.v = additive ? data(v) : nullptr;
    m.combine_ih = data(combine_ih);
    m.combine_hh = data(combine_hh);
    m.output_weight = data(output);
    m.output_bias = data(bias);
    to->sources.B = B, to->sources.S = S;
    if (context == DecodeContext::kAttention) {
      to->sources.keys = data(keys);
      to->sources.values = data(values);
    }
    to->sources.context = data(every);
    for (int64_t l = 0; l < L; ++l) {
      kernels::RecurrentWeights w;
      w.w_ih = data(layers[5 * l]), w.w_hh = data(layers[5 * l + 1]);
      w.b_ih = data(layers[5 * l + 2]), w.b_hh = data(layers[5 * l + 3]);
      if (P != H) w.w_hr = data(layers[5 * l + 4]);
      to->layers.push_back(w);
      to->hidden.push_back(data(hidden[l]));
      to->cells.push_back(data(cells[l]));
    }
    m.layers = to->layers.data();
    to->sources.hidden = to->hidden.data();
    to->sources.cells = to->cells.data();
  }
};

// A host's copy of arrays in their dtype.
class HostCopies {
 public:
  const void* operator()(const Array& array) const {
    const bool wide = array.dtype() == DType::kFloat64;
    if (wide) return array.oracle();
    auto& copy = copies_[&array];
    if (copy.empty()) copy.assign(array.values().begin(), array.values().end());
    return copy.data();
  }

 private:
  mutable std::map<const Array*, std::vector<float>> copies_;
};

inline DecodeOptions options_of(Bench& bench, int64_t V) {
  Arguments& args = bench.args;
  DecodeOptions o;
  o.mode = named<DecodeMode>(args, "mode", "greedy",
                             {{"greedy", DecodeMode::kGreedy},
                              {"sample", DecodeMode::kSample},
                              {"beam", DecodeMode::kBeam},
                              {"given", DecodeMode::kGiven}});
  const bool one = o.mode == DecodeMode::kGreedy || o.mode == DecodeMode::kGiven;
  o.slots = args.size("K", one ? 1 : 3);
  o.results = o.mode == DecodeMode::kBeam ? args.size("R", o.slots) : o.slots;
  o.max_new_tokens = args.size("max", 5);
  o.min_new_tokens = args.size("min", 0);
  o.start_token = 1;
  for (int64_t token = 0; token < args.size("ends", 5); ++token) o.eos.push_back(7 * token % V);
  std::sort(o.eos.begin(), o.eos.end());
  for (int64_t token = 3; token < V && args.flag("ban"); token += 2) o.banned.push_back(token);
  o.temperature = std::stod(args.text("temperature", "1"));
  o.top_k = args.size("top_k", 0);
  o.top_p = std::stod(args.text("top_p", "1"));
  o.min_p = std::stod(args.text("min_p", "0"));
  o.seed = 0xfedcba9876543210u;
  o.length_penalty = std::stod(args.text("length_penalty", "1"));
  o.early_stopping = static_cast<DecodeOptions::EarlyStopping>(args.size("early", 0));
  o.groups = args.size("groups", 1);
  o.diversity_penalty = std::stod(args.text("diversity", "0"));
  o.coverage_penalty = std::stod(args.text("coverage", "0"));
  o.repetition_penalty = std::stod(args.text("penalty", "1"));
  o.no_repeat_ngram_size = args.size("ngram", 0);
  for (int64_t i = 0; i < args.size("phrases", 0); ++i) {
    o.phrases.push_back({int64_t(bench.random() % V), int64_t(bench.random() % V)});
    if (i % 2 != 0) o.phrases.back().push_back(int64_t(bench.random() % V));
  }
  o.attentions = args.flag("keep");
  return o;
}

// What options and the model point to, for each source, here and on the device.
struct Tables {
  const int64_t B, V;
  const int64_t prefix_size, given_size;
  const Integers<uint8_t> allowed;
  const Integers<int64_t> shortlist, prefix, given, given_lengths;

  explicit Tables(const Decoder& d, const DecodeOptions& o)
      : B(d.B),
        V(d.V),
        prefix_size(d.bench.args.size("prefix", 0)),
        given_size(o.mode == DecodeMode::kGiven ? o.max_new_tokens : 0),
        allowed(some<uint8_t>(d.bench.args.flag("allow") ? B * V : 0,
                              [&](int64_t) { return d.bench.random() % 3 == 0; })),
        shortlist(some<int64_t>(d.num_tokens > V ? V : 0,
                                [&](int64_t i) { return i + i * (d.num_tokens - V) / V; })),
        prefix(some<int64_t>(B * prefix_size,
                             [&](int64_t i) {
                               const bool ended = i % prefix_size >= i / prefix_size % 3 + 1;
                               return ended ? -1 : token(d.bench.random() % V);
                             })),
        given(some<int64_t>(B * given_size,
                            [&](int64_t) { return d.bench.random() % d.num_tokens; })),
        given_lengths(some<int64_t>(given_size > 0 ? B : 0, [&](int64_t i) {
          return i == 0 ? given_size : d.bench.random() % (given_size + 1);
        })) {}

  int64_t token(int64_t word) const {
    return shortlist.values().empty() ? word : shortlist.values()[word];
  }

  // Of the sources from `first`. get(table): its numbers, here or there.
  template <class Get>
  void point(DecodeOptions* o, DecodeModel* m, int64_t first, int64_t count, const Get& get) const {
    const auto row = [&](const auto& table, int64_t width) {
      return table.values().empty() ? nullptr : get(table) + first * width;
    };
    o->allowed = row(allowed, V);
    o->allowed_rows = o->allowed == nullptr ? 0 : count;
    o->prefix = row(prefix, prefix_size);
    o->prefix_size = prefix_size;
    o->given = row(given, given_size);
    o->given_lengths = row(given_lengths, 1);
    o->given_size = given_size;
    m->tokens = row(shortlist, 0);
  }

 private:
  template <class T, class Make>
  static std::vector<T> some(int64_t count, const Make& make) {
    std::vector<T> made(count);
    for (int64_t i = 0; i < count; ++i) made[i] = static_cast<T>(make(i));
    return made;
  }
};

}  // namespace seq2seq_ext::kernel_bench
