// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <stdexcept>

#include "bench.h"
#include "common/philox.h"
#include "cpu/launch.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernel_bench {
namespace {

using kernels::VocabPickParams;

DType state_of(DType dtype) { return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

// A problem, its exact logits, and what the CPU kernel makes of it in float64.
struct Vocab {
  Bench& bench;
  const DType dtype, state;
  const int64_t B, H, V, K;
  const double temperature;
  // exact: small integers, so that ties abound and no sum is rounded. spoiled: rows without a
  // distribution: a NaN, an inf, all banned.
  const bool sample, exact, spoiled;
  Array hidden, weight;
  std::optional<Array> bias;
  std::optional<Integers<int32_t>> banned;
  Integers<int64_t> seed, step, rows;
  std::vector<double> logits;  // (B, V), after temperature and bans
  std::vector<double> log_probs;
  std::vector<int64_t> indices;

  explicit Vocab(Bench& b)
      : bench(b),
        dtype(b.args.dtype()),
        state(state_of(dtype)),
        B(b.args.size("B", 5)),
        H(b.args.size("H", 70)),
        V(b.args.size("V", 1203)),
        K(b.args.size("K", 1)),
        temperature(std::stod(b.args.text("temperature", "1"))),
        sample(b.args.flag("sample")),
        exact(b.args.flag("exact")),
        spoiled(b.args.flag("spoil")),
        hidden(dtype, hidden_values()),
        weight(values(V * H, exact ? 1.0 : 1 / std::sqrt(double(std::max<int64_t>(H, 1))))),
        seed(std::vector<int64_t>{int64_t{-8123456789012345678}}),
        step(std::vector<int64_t>{77}),
        rows(row_ids()) {
    if (b.args.flag("bias", true)) bias.emplace(values(V, 1.0));
    const int64_t words = (V + 31) / 32;
    if (b.args.flag("banned")) {
      std::vector<int32_t> bits(B * words);
      for (int32_t& x : bits) x = static_cast<int32_t>(b.random() & b.random());
      banned.emplace(std::move(bits));
    }
    ban_a_row();
    find_logits();
    run_oracle();
  }

  Array values(int64_t count, double scale) {
    if (!exact) return bench.normal(dtype, count, scale);
    std::vector<double> integers(count);
    for (double& x : integers) x = double(bench.random() % 5) - 2;
    return Array(dtype, std::move(integers));
  }

  std::vector<int64_t> row_ids() {
    std::vector<int64_t> ids(B);
    for (int64_t b = 0; b < B; ++b) ids[b] = b % 3 == 1 ? (b << 40) - 7 : b;
    return ids;
  }

  std::vector<double> hidden_values() {
    std::vector<double> h = values(B * H, 1.0).values();
    if (!spoiled) return h;
    if (B > 1) h[1 * H] = NAN;
    if (B > 2) h[2 * H] = INFINITY;
    return h;
  }
  void ban_a_row() {
    if (!spoiled) return;
    std::vector<int32_t> bits =
        banned ? banned->values() : std::vector<int32_t>(B * ((V + 31) / 32));
    const int64_t words = (V + 31) / 32;
    if (B > 3) std::fill_n(bits.begin() + 3 * words, words, -1);
    banned.emplace(std::move(bits));
  }

  bool is_banned(int64_t b, int64_t v) const {
    return banned && banned->values()[b * ((V + 31) / 32) + v / 32] >> (v % 32) & 1;
  }

  void find_logits() {
    logits.assign(B * V, 0);
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t v = 0; v < V; ++v) {
        double sum = bias ? bias->values()[v] : 0;
        for (int64_t k = 0; k < H; ++k)
          sum += hidden.values()[b * H + k] * weight.values()[v * H + k];
        logits[b * V + v] = is_banned(b, v) ? -INFINITY : sum / temperature;
      }
    }
  }

  VocabPickParams params() const {
    VocabPickParams p{};
    p.dtype = dtype;
    p.B = B, p.H = H, p.V = V, p.K = K;
    p.temperature = temperature;
    p.hidden = hidden.data();
    p.weight = weight.data();
    p.bias = bias ? bias->data() : nullptr;
    p.banned = banned ? banned->data() : nullptr;
    if (sample) p.seed = seed.data(), p.step = step.data(), p.rows = rows.data();
    return p;
  }

  void run_oracle() {
    VocabPickParams p = params();
    p.dtype = DType::kFloat64;
    p.hidden = hidden.oracle();
    p.weight = weight.oracle();
    p.bias = bias ? bias->oracle() : nullptr;
    p.banned = banned ? banned->values().data() : nullptr;
    if (sample)
      p.seed = seed.values().data(), p.step = step.values().data(), p.rows = rows.values().data();
    log_probs.resize(B * K);
    indices.resize(B * K);
    p.log_probs = log_probs.data();
    p.indices = indices.data();
    const kernels::Status status = kernels::cpu::vocab_pick(p, kernels::default_runtime(1));
    if (!status) throw std::runtime_error(status.message());
  }

  // The size of a word's noise in float64.
  double noise(int64_t b, int64_t v) const {
    const kernels::DrawKey key{uint64_t(seed.values()[0]), uint32_t(step.values()[0]),
                               uint64_t(rows.values()[b])};
    kernels::Philox random = key.counter(uint32_t(v / 32 * 8 + v % 8));
    random.run(key.seed);
    return -std::log(-std::log1p(-(random.word[v / 8 % 4] + 0.5) * std::ldexp(1.0, -32)));
  }

  // What a word is picked by.
  double key(int64_t b, int64_t v) const { return logits[b * V + v] + (sample ? noise(b, v) : 0); }

  double largest() const {
    double result = 1;
    for (double x : logits) {
      if (std::isfinite(x)) result = std::max(result, std::fabs(x));
    }
    return result;
  }

  struct Found {
    std::vector<double> log_probs;
    std::vector<int64_t> indices;
    bool operator==(const Found& other) const {
      return indices == other.indices &&
             std::equal(
                 log_probs.begin(), log_probs.end(), other.log_probs.begin(), other.log_probs.end(),
                 [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); });
    }
  };

  // Rows first ... first + count, by themselves.
  Found run(int64_t first, int64_t count, int64_t k) {
    VocabPickParams p = params();
    p.B = count, p.K = k;
    p.hidden = static_cast<const char*>(p.hidden) + first * H * kernels::size_of(dtype);
    if (banned) p.banned += first * ((V + 31) / 32);
    if (sample) p.rows += first;
    const Array out(state, count * k);
    const Integers<int64_t> picked(count * k);
    p.log_probs = out.data();
    p.indices = picked.data();
    bench.launch([&] { return kernels::cuda::vocab_pick(p, bench.runtime); });
    return {out.download(), picked.download()};
  }

  // Every pick is the oracle's, or as good as it to rounding.
  void check_indices(const Found& found) {
    const double tolerance = exact ? 0 : 32 * epsilon(state) * largest();
    bool right = true;
    for (int64_t b = 0; b < B; ++b) {
      const auto first = found.indices.begin() + b * K;
      right &= int64_t(std::set<int64_t>(first, first + K).size()) == K;
      for (int64_t k = 0; k < K; ++k) {
        const int64_t got = first[k], expected = indices[b * K + k];
        if (got == expected) continue;
        right &= !std::isnan(log_probs[b * K]) && got >= 0 && got < V;
        right = right && key(b, expected) - key(b, got) <= tolerance &&
                key(b, got) - key(b, expected) <= tolerance && !(exact && !sample);
      }
    }
    bench.check_true("indices", right);
  }

  void check_invariance(const Found& whole) {
    bool alone = true, parts = true;
    const auto same = [&](int64_t first, int64_t count) {
      const Found part = run(first, count, K);
      return part == Found{{whole.log_probs.begin() + first * K,
                            whole.log_probs.begin() + (first + count) * K},
                           {whole.indices.begin() + first * K,
                            whole.indices.begin() + (first + count) * K}};
    };
    for (int64_t b = 0; b < std::min<int64_t>(B, 4); ++b) alone &= same(b, 1);
    alone &= same(B - 1, 1);
    for (const int64_t count : {B / 2, std::min<int64_t>(B, 9), std::min<int64_t>(B, 33)}) {
      if (count > 0) parts &= same(B - count, count);
    }
    bench.check_true("rows alone, bit for bit", alone);
    bench.check_true("rows in other batches", parts);
    bench.check_true("a second run", same(0, B));
    if (K == 1) return;
    const Found one = run(0, B, 1);
    bool first = true;
    for (int64_t b = 0; b < B; ++b) {
      first &= Found{{one.log_probs[b]}, {one.indices[b]}} ==
               Found{{whole.log_probs[b * K]}, {whole.indices[b * K]}};
    }
    bench.check_true("K = 1, bit for bit", first);
  }
};

}  // namespace

BENCH_CASE(
    vocab_pick,
    "B=5 H=70 V=1203 K=1 bias=1 banned=0 temperature=1 sample=0 exact=0 spoil=0 invariance=1") {
  const bool invariance = bench.args.flag("invariance", true);
  Vocab problem(bench);
  const Vocab::Found found = problem.run(0, problem.B, problem.K);
  std::vector<double> expected = problem.log_probs;
  for (size_t i = 0; i < expected.size(); ++i) {  // of the word that was taken
    const int64_t b = int64_t(i) / problem.K, word = found.indices[i];
    if (std::isnan(expected[i]) || word < 0 || word >= problem.V) continue;
    expected[i] +=
        problem.logits[b * problem.V + word] - problem.logits[b * problem.V + problem.indices[i]];
    if (std::isnan(expected[i])) expected[i] = -INFINITY;
  }
  bench.check("log_probs", found.log_probs, expected, problem.state, 16);
  problem.check_indices(found);
  if (invariance && problem.B > 0) problem.check_invariance(found);

  VocabPickParams p = problem.params();
  const Array log_probs(problem.state, problem.B * problem.K);
  const Integers<int64_t> indices(problem.B * problem.K);
  p.log_probs = log_probs.data();
  p.indices = indices.data();
  const double size = double(kernels::size_of(problem.dtype));
  bench.time([&] { return kernels::cuda::vocab_pick(p, bench.runtime); },
             double(problem.V + problem.B) * problem.H * size,
             2.0 * problem.B * problem.V * problem.H);
}

}  // namespace seq2seq_ext::kernel_bench
