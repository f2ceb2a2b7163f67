// SPDX-License-Identifier: MIT
// The loop on the device against the CPU's, which is told the same numbers: token for token, in
// float32 and float64. The narrower types, whose rounding may take another token, are compared with
// themselves: a second run, and each source alone.
#include "cuda/decode.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "bench.h"
#include "cpu/decode/engine.h"

namespace seq2seq_ext::kernel_bench {
namespace {

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

struct Rows {
  std::vector<int64_t> lengths, tokens;
  std::vector<double> log_probs, ranks;
  int64_t T = 0;

  bool operator==(const Rows& other) const {
    return T == other.T && lengths == other.lengths && tokens == other.tokens &&
           log_probs == other.log_probs;
  }
};

// A model and its sources, and pointers to them for either device. Numbers are as they are on the
// device, in the dtype; the CPU computes in it, too.
struct Decoder {
  Bench& bench;
  const DType dtype, state;
  const Cell cell;
  const DecodeContext context;
  const bool feed, additive;
  const int64_t L, B, E, H, C, A, S, V;
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
        C(b.args.size("C", 10)),
        A(b.args.size("A", 7)),
        S(b.args.size("S", 5)),
        V(b.args.size("V", 140)),
        inputs(E + (context == DecodeContext::kEveryStep ? C
                    : feed                               ? H
                                                         : 0)),
        embedding(some(V * E, 1)),
        output(some(V * H, 4, H)),
        bias(some(V, 1)),
        combine_ih(some(H * C, 1, C)),
        combine_hh(some(H * H, 1, H)),
        query(some(A * H, 1, H)),
        v(some(A, 1)),
        keys(some(B * S * A, 1)),
        values(some(B * S * C, 1)),
        every(some(B * C, 1)),
        lengths(source_lengths()) {
    const int64_t gates = kernels::num_gates(cell) * H;
    for (int64_t l = 0; l < L; ++l) {
      const int64_t width = l == 0 ? inputs : H;
      layers.push_back(some(gates * width, 1, width));
      layers.push_back(some(gates * H, 1, H));
      layers.push_back(some(gates, 0.5));
      layers.push_back(some(gates, 0.5));
      hidden.push_back(some(B * H, 1));
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
    double count = double(V) * H + E;
    for (int64_t l = 0; l < L; ++l) {
      count += double(kernels::num_gates(cell)) * H * ((l == 0 ? inputs : H) + H);
    }
    return context == DecodeContext::kAttention ? count + double(H) * (A + C + H) : count;
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
    m.L = L, m.E = E, m.H = m.P = H, m.V = m.num_tokens = V, m.A = A, m.C = C;
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
      w.w_ih = data(layers[4 * l]), w.w_hh = data(layers[4 * l + 1]);
      w.b_ih = data(layers[4 * l + 2]), w.b_hh = data(layers[4 * l + 3]);
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

DecodeOptions options_of(Bench& bench, int64_t V) {
  Arguments& args = bench.args;
  DecodeOptions o;
  o.mode = named<DecodeMode>(args, "mode", "greedy",
                             {{"greedy", DecodeMode::kGreedy},
                              {"sample", DecodeMode::kSample},
                              {"beam", DecodeMode::kBeam}});
  o.slots = args.size("K", o.mode == DecodeMode::kGreedy ? 1 : 3);
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
  return o;
}

// A loop on the device, and memory for its results.
struct DeviceLoop {
  Bench& bench;
  const Decoder& d;
  DecodeOptions o;
  const int64_t first, B, R;  // sources
  Decoder::Pointers p;
  Integers<int64_t> lengths, tokens;
  Array ranks, log_probs;
  kernels::cuda::DecodeOutput out{};
  int64_t T = 0;

  DeviceLoop(const Decoder& decoder, const DecodeOptions& options, const uint8_t* allowed,
             int64_t first, int64_t count)
      : bench(decoder.bench),
        d(decoder),
        o(options),
        first(first),
        B(count),
        R(count * options.results),
        lengths(R),
        tokens(R * options.max_new_tokens),
        ranks(DType::kFloat64, R),
        log_probs(decoder.state, R * options.max_new_tokens) {
    d.point(&p, [](const Array& array) { return array.data(); });
    select(allowed);
    out.lengths = lengths.data();
    out.ranks = static_cast<double*>(ranks.data());
  }

  void select(const uint8_t* allowed) {
    const int64_t size = kernels::size_of(d.dtype), state_size = kernels::size_of(d.state);
    const auto skip = [&](const void*& pointer, int64_t row) {
      if (pointer != nullptr) pointer = static_cast<const char*>(pointer) + first * row;
    };
    p.sources.B = B;
    skip(p.sources.keys, d.S * d.A * size);
    skip(p.sources.values, d.S * d.C * size);
    skip(p.sources.context, d.C * size);
    for (const void*& hidden : p.hidden) skip(hidden, d.H * size);
    for (const void*& cells : p.cells) skip(cells, d.H * state_size);
    if (d.context == DecodeContext::kAttention) p.sources.lengths = d.lengths.data() + first;
    o.allowed = allowed == nullptr ? nullptr : allowed + first * d.V;
    o.allowed_rows = allowed == nullptr ? 0 : B;
  }

  kernels::Status run() {
    const auto make = [&](int64_t longest, kernels::cuda::DecodeOutput* made) {
      T = longest;
      made->tokens = tokens.data();
      made->log_probs = log_probs.data();
    };
    return kernels::cuda::decode_sequences(p.model, p.sources, o, bench.runtime, make, &out);
  }

  Rows rows() {
    bench.launch([&] { return run(); });
    Rows rows{lengths.download(), tokens.download(), log_probs.download(), ranks.download(), T};
    rows.tokens.resize(R * T);
    rows.log_probs.resize(R * T);
    return rows;
  }
};

Rows run_on_host(const Decoder& d, DecodeOptions o, const uint8_t* allowed) {
  Decoder::Pointers p;
  const HostCopies copies;
  d.point(&p, copies);
  if (d.context == DecodeContext::kAttention) p.sources.lengths = d.lengths.values().data();
  o.allowed = allowed;
  kernels::DecodeResult result;
  const kernels::Status status =
      kernels::cpu::decode_sequences(p.model, p.sources, o, kernels::default_runtime(1), &result);
  if (!status) throw std::runtime_error(status.message());
  return {result.lengths, result.tokens, result.log_probs, result.ranks, result.T};
}

void check_with_host(Bench& bench, const Decoder& d, const DecodeOptions& o, const Rows& got,
                     const Rows& want) {
  bench.check_true("lengths", got.lengths == want.lengths && got.T == want.T);
  bool same = got.T == want.T;
  std::vector<double> found, expected;
  for (int64_t r = 0; same && r < d.B * o.results; ++r) {
    for (int64_t t = 0; t < want.T; ++t) {
      const int64_t at = r * want.T + t;
      same &= t >= want.lengths[r] || got.tokens[at] == want.tokens[at];
      found.push_back(got.log_probs[at]);
      expected.push_back(t < want.lengths[r] ? want.log_probs[at] : 0);
    }
  }
  bench.check_true("tokens", same);
  bench.check("log_probs", found, expected, d.state, 64);
  if (o.mode != DecodeMode::kBeam) return;
  std::vector<double> ranks[2] = {got.ranks, want.ranks};
  for (std::vector<double>& all : ranks) {
    for (double& rank : all) rank = std::isinf(rank) ? 1e9 : rank;
  }
  bench.check("ranks", ranks[0], ranks[1], d.state, 64);
}

// Each source by itself; not with sampling, which is keyed by its place.
void check_alone(Bench& bench, const Decoder& d, const DecodeOptions& o, const Rows& whole,
                 const uint8_t* allowed) {
  bench.check_true("a second run", DeviceLoop(d, o, allowed, 0, d.B).rows() == whole);
  bool same = true;
  for (int64_t b = 0; o.mode != DecodeMode::kSample && b < std::min<int64_t>(d.B, 4); ++b) {
    const Rows alone = DeviceLoop(d, o, allowed, b, 1).rows();
    for (int64_t i = 0; i < o.results; ++i) {
      const int64_t r = b * o.results + i;
      same &= alone.lengths[i] == whole.lengths[r];
      for (int64_t t = 0; same && t < alone.lengths[i]; ++t) {
        const int64_t from = i * alone.T + t, at = r * whole.T + t;
        same &= alone.tokens[from] == whole.tokens[at];
        same &= alone.log_probs[from] == whole.log_probs[at];
      }
    }
  }
  bench.check_true("sources alone, bit for bit", same);
}

}  // namespace

BENCH_CASE(decode,
           "mode=greedy cell=lstm context=attention feed=0 additive=0 L=1 B=3 K=3 R=K E=9 H=12 "
           "C=10 A=7 S=5 V=140 max=5 min=0 ends=5 ban=0 allow=0 temperature=1 top_k=0 top_p=1 "
           "min_p=0 length_penalty=1 early=0") {
  const Decoder d(bench);
  DecodeOptions o = options_of(bench, d.V);
  std::vector<uint8_t> allowed(bench.args.flag("allow") ? d.B * d.V : 0);
  for (uint8_t& word : allowed) word = bench.random() % 3 == 0;
  o.allowed_rows = allowed.empty() ? 0 : d.B;
  const Integers<uint8_t> allowed_there(allowed);
  const uint8_t* const here = allowed.empty() ? nullptr : allowed.data();
  const uint8_t* const there = allowed.empty() ? nullptr : allowed_there.data();
  DeviceLoop loop(d, o, there, 0, d.B);
  const Rows got = loop.rows();
  if (kernels::size_of(d.dtype) > 2) {
    check_with_host(bench, d, o, got, run_on_host(d, o, here));
  } else {
    check_alone(bench, d, o, got, there);
  }
  const double rows = double(d.B * o.slots), steps = double(got.T), weights = d.weights();
  bench.time([&] { return loop.run(); }, steps * weights * kernels::size_of(d.dtype),
             2 * steps * rows * weights);
}

}  // namespace seq2seq_ext::kernel_bench
