// SPDX-License-Identifier: MIT
// The loop on the device against the CPU's, which is told the same numbers: token for token, in
// float32 and float64. The narrower types, whose rounding may take another token, are compared with
// themselves: a second run, and each source alone.
#include "cuda/decode.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "cases/decode_problem.h"
#include "cpu/decode/engine.h"

namespace seq2seq_ext::kernel_bench {
namespace {

struct Rows {
  std::vector<int64_t> lengths, tokens;
  std::vector<double> log_probs, ranks, attentions;
  int64_t T = 0;

  bool operator==(const Rows& other) const {
    return T == other.T && lengths == other.lengths && tokens == other.tokens &&
           log_probs == other.log_probs;
  }
};

// A loop on the device, and memory for its results.
struct DeviceLoop {
  Bench& bench;
  const Decoder& d;
  DecodeOptions o;
  const int64_t first, B, R;  // sources
  Decoder::Pointers p;
  Integers<int64_t> lengths, tokens;
  Array ranks, log_probs, attentions;
  kernels::cuda::DecodeOutput out{};
  int64_t T = 0;

  DeviceLoop(const Decoder& decoder, const DecodeOptions& options, const Tables& tables,
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
        log_probs(decoder.state, R * options.max_new_tokens),
        attentions(decoder.dtype, o.attentions ? R * options.max_new_tokens * decoder.S : 0) {
    d.point(&p, [](const Array& array) { return array.data(); });
    select();
    tables.point(&o, &p.model, first, count, [](const auto& table) { return table.data(); });
    out.lengths = lengths.data();
    out.ranks = static_cast<double*>(ranks.data());
  }

  void select() {
    const int64_t size = kernels::size_of(d.dtype), state_size = kernels::size_of(d.state);
    const auto skip = [&](const void*& pointer, int64_t row) {
      if (pointer != nullptr) pointer = static_cast<const char*>(pointer) + first * row;
    };
    p.sources.B = B;
    skip(p.sources.keys, d.S * d.A * size);
    skip(p.sources.values, d.S * d.C * size);
    skip(p.sources.context, d.C * size);
    for (const void*& hidden : p.hidden) skip(hidden, d.P * size);
    for (const void*& cells : p.cells) skip(cells, d.H * state_size);
    if (d.context == DecodeContext::kAttention) p.sources.lengths = d.lengths.data() + first;
  }

  kernels::Status run() {
    const auto make = [&](int64_t longest, kernels::cuda::DecodeOutput* made) {
      T = longest;
      made->tokens = tokens.data();
      made->log_probs = log_probs.data();
      made->attentions = attentions.data();
    };
    return kernels::cuda::decode_sequences(p.model, p.sources, o, bench.runtime, make, &out);
  }

  Rows rows() {
    bench.launch([&] { return run(); });
    Rows rows{lengths.download(), tokens.download(),     log_probs.download(),
              ranks.download(),   attentions.download(), T};
    rows.tokens.resize(R * T);
    rows.log_probs.resize(R * T);
    if (o.attentions) rows.attentions.resize(R * T * d.S);
    return rows;
  }
};

Rows run_on_host(const Decoder& d, DecodeOptions o, const Tables& tables) {
  Decoder::Pointers p;
  const HostCopies copies;
  d.point(&p, copies);
  if (d.context == DecodeContext::kAttention) p.sources.lengths = d.lengths.values().data();
  tables.point(&o, &p.model, 0, d.B, [](const auto& table) { return table.values().data(); });
  kernels::DecodeResult result;
  const kernels::Status status =
      kernels::cpu::decode_sequences(p.model, p.sources, o, kernels::default_runtime(1), &result);
  if (!status) throw std::runtime_error(status.message());
  return {result.lengths, result.tokens,     result.log_probs,
          result.ranks,   result.attentions, result.T};
}

std::vector<double> finite(std::vector<double> values) {
  for (double& value : values) value = std::isinf(value) ? 1e9 : value;
  return values;
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
  bench.check("log_probs", finite(found), finite(expected), d.state, 64);
  if (o.attentions) bench.check("attentions", got.attentions, want.attentions, d.state, 64);
  if (o.mode != DecodeMode::kBeam) return;
  bench.check("ranks", finite(got.ranks), finite(want.ranks), d.state, 64);
}

// Each source by itself; not with sampling, which is keyed by its place.
void check_alone(Bench& bench, const Decoder& d, const DecodeOptions& o, const Rows& whole,
                 const Tables& tables) {
  bench.check_true("a second run", DeviceLoop(d, o, tables, 0, d.B).rows() == whole);
  bool same = true;
  for (int64_t b = 0; o.mode != DecodeMode::kSample && b < std::min<int64_t>(d.B, 4); ++b) {
    const Rows alone = DeviceLoop(d, o, tables, b, 1).rows();
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
           "mode=greedy cell=lstm context=attention feed=0 additive=0 L=1 B=3 K=3 R=K E=9 H=12 P=H "
           "C=10 A=7 S=5 V=140 max=5 min=0 ends=5 ban=0 allow=0 temperature=1 top_k=0 top_p=1 "
           "min_p=0 length_penalty=1 early=0 groups=1 diversity=0 coverage=0 penalty=1 ngram=0 "
           "phrases=0 prefix=0 shortlist=0 keep=0") {
  const Decoder d(bench);
  const DecodeOptions o = options_of(bench, d.num_tokens);
  const Tables tables(d, o);
  DeviceLoop loop(d, o, tables, 0, d.B);
  const Rows got = loop.rows();
  if (kernels::size_of(d.dtype) > 2) {
    check_with_host(bench, d, o, got, run_on_host(d, o, tables));
  } else {
    check_alone(bench, d, o, got, tables);
  }
  const double rows = double(d.B * o.slots), steps = double(got.T), weights = d.weights();
  bench.time([&] { return loop.run(); }, steps * weights * kernels::size_of(d.dtype),
             2 * steps * rows * weights);
}

}  // namespace seq2seq_ext::kernel_bench
