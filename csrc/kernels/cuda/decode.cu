// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cuda/decode.h"
#include "cuda/decode_loop.h"
#include "cuda/decode_state.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

// The work memory of launchers, the same at every step: what the first asked for.
class StepMemory {
 public:
  explicit StepMemory(const Runtime& outer) : outer_(outer) {}

  // A step begins. No large products: nothing here asks for them, and they would want the outer
  // runtime's context.
  Runtime begin(Runtime runtime) {
    next_ = 0;
    runtime.allocate = take;
    runtime.gemm = nullptr;
    runtime.context = this;
    return runtime;
  }

 private:
  static void* take(int64_t bytes, void* context) {
    auto& self = *static_cast<StepMemory*>(context);
    if (self.next_ == self.pieces_.size()) {
      self.pieces_.emplace_back(bytes, self.outer_.allocate(bytes, self.outer_.context));
    }
    const auto& [size, memory] = self.pieces_[self.next_++];
    return size >= bytes ? memory : nullptr;
  }

  const Runtime& outer_;
  std::vector<std::pair<int64_t, void*>> pieces_;
  size_t next_ = 0;
};

class Decoding {
 public:
  Decoding(const DecodeModel& model, const DecodeSources& sources, const DecodeOptions& options,
           const Runtime& runtime)
      : m_(model), sources_(sources), o_(options), runtime_(runtime), step_memory_(runtime) {
    s_.B = sources.B;
    s_.K = options.slots;
    s_.rows = s_.B * s_.K;
    s_.dtype = model.dtype;
    s_.max_new_tokens = options.max_new_tokens;
    s_.min_new_tokens = options.min_new_tokens;
    s_.words = (model.V + 31) / 32;
    s_.most = s_.K * (1 + static_cast<int64_t>(options.eos.size()));
    s_.C = candidates();
  }

  // Everything before the first step.
  Status prepare() {
    allocate();
    if (failed_) return Status::invalid("decode: out of device memory");
    Status status = decode_begin({s_, o_.start_token, o_.seed, o_.row_ids}, runtime_);
    if (status) status = set_bits();
    for (int64_t l = 0; status && l < m_.L; ++l) {
      status = decode_spread(hidden_[l].of[0], sources_.hidden[l], s_.rows, s_.K, m_.H * size(),
                             runtime_);
      if (!status || !lstm()) continue;
      status = decode_spread(cells_[l].of[0], sources_.cells[l], s_.rows, s_.K, m_.H * state_size(),
                             runtime_);
    }
    if (status && m_.input_feeding) {
      status = decode_spread(features_.of[0], nullptr, s_.rows, 1, m_.H * size(), runtime_);
    }
    return status;
  }

  Status run() {
    const auto pair = [this](const Runtime& runtime) {
      const Status status = step(0, runtime);
      return status ? step(1, runtime) : status;
    };
    return run_pairs(pair, (o_.max_new_tokens + 1) / 2, s_.live, runtime_);
  }

  Status finish(const std::function<void(int64_t, DecodeOutput*)>& make_rows, DecodeOutput* out) {
    Status status =
        decode_summarize(s_, o_.results, out->lengths, beam() ? out->ranks : nullptr, runtime_);
    DecodeSummary summary;
    if (status) status = read_back(&summary, s_.summary, sizeof(summary), runtime_);
    if (!status) return status;
    if (summary.undefined != ~uint64_t{0}) {
      out->undefined_source = static_cast<int64_t>(summary.undefined >> 32) / s_.K;
      out->undefined_step = static_cast<int64_t>(summary.undefined & 0xffffffffu);
    }
    const auto T = static_cast<int64_t>(summary.longest);
    make_rows(T, out);
    return decode_follow(s_, o_.results, T, out->lengths, out->tokens, out->log_probs, runtime_);
  }

 private:
  // -- sizes -------------------------------------------------------------------------------------

  bool beam() const { return o_.mode == DecodeMode::kBeam; }
  bool lstm() const { return m_.cell == Cell::kLstm; }
  bool attends() const { return m_.context == DecodeContext::kAttention; }
  // The kernel that looks at the vocabulary draws from all of it.
  bool draws_all() const {
    return o_.mode == DecodeMode::kSample && o_.top_k == 0 && o_.top_p >= 1 && o_.min_p <= 0;
  }
  bool draws_some() const { return o_.mode == DecodeMode::kSample && !draws_all(); }
  int64_t size() const { return size_of(m_.dtype); }
  int64_t state_size() const { return m_.dtype == DType::kFloat64 ? 8 : 4; }

  int64_t candidates() const {
    if (beam()) return std::min(s_.most, m_.V);
    if (!draws_some()) return 1;
    return o_.top_k > 0 ? std::min(o_.top_k, m_.V) : m_.V;
  }

  // -- memory ------------------------------------------------------------------------------------

  template <class T>
  void take(T*& pointer, int64_t count, int64_t each = sizeof(T)) {
    void* const memory = runtime_.allocate(std::max<int64_t>(count * each, 1), runtime_.context);
    failed_ |= memory == nullptr;
    pointer = static_cast<T*>(memory);
  }
  void take(void*& pointer, int64_t count, int64_t each) {
    char* memory;
    take(memory, count, each);
    pointer = memory;
  }

  struct Pair {
    void* of[2];  // by the parity of the step that reads it
  };
  void take(Pair& pair, int64_t count, int64_t each) {
    for (void*& memory : pair.of) take(memory, count, each);
  }

  void allocate() {
    const int64_t rows = s_.rows, all = rows * o_.max_new_tokens;
    take(s_.step, 1);
    take(s_.live, 1);
    take(s_.summary, 1);
    take(s_.tokens, rows);
    take(s_.undefined, rows);
    take(s_.source, rows);
    take(ends_, s_.words);
    s_.ends = ends_;
    take(s_.log_probs, rows * s_.C, state_size());
    take(s_.indices, rows * s_.C);
    take(s_.trace_tokens, all);
    take(s_.trace_log_probs, all, state_size());
    if (beam()) {
      allocate_beams(all);
    } else {
      take(s_.alive, rows);
      take(s_.lengths, rows);
    }
    if (o_.mode == DecodeMode::kSample) {
      take(s_.seed, 1);
      take(s_.row_ids, rows);
    }
    if (draws_some() && o_.top_p < 1) take(s_.weights, rows * s_.C);
    allocate_bans();
    allocate_layers();
  }

  void allocate_beams(int64_t all) {
    const int64_t rows = s_.rows;
    take(s_.trace_parents, all);
    take(s_.from, rows);
    take(s_.scores, rows);
    take(s_.running, rows);
    take(s_.finished, rows);
    take(s_.done, s_.B);
    take(s_.totals, rows * s_.C);
    take(s_.extended, s_.B * s_.most);
  }

  bool early_bans() const { return o_.min_new_tokens > 0 && !o_.eos.empty(); }

  void allocate_bans() {
    const bool late = o_.allowed != nullptr || !o_.banned.empty();
    if (!late && !early_bans()) return;
    s_.ban_rows = o_.allowed != nullptr && o_.allowed_rows > 1 ? s_.B : 1;
    take(s_.banned, s_.ban_rows * s_.words);
    if (!early_bans()) return;
    take(late_, s_.ban_rows * s_.words);
    s_.late = late_;
  }

  void allocate_layers() {
    const int64_t rows = s_.rows;
    hidden_.resize(m_.L);
    cells_.resize(m_.L);
    for (int64_t l = 0; l < m_.L; ++l) {
      take(hidden_[l], rows * m_.H, size());
      if (lstm()) take(cells_[l], rows * m_.H, state_size());
    }
    take(x_, rows * inputs(), size());
    if (!attends()) return;
    take(features_, rows * m_.H, size());
    take(context_, rows * m_.C, size());
    take(weights_, rows * sources_.S, size());
  }

  int64_t second_width() const {
    return m_.context == DecodeContext::kEveryStep ? m_.C : m_.input_feeding ? m_.H : 0;
  }
  int64_t inputs() const { return m_.E + second_width(); }

  Status set_bits() {
    const auto count = [](const std::vector<int64_t>& v) { return static_cast<int64_t>(v.size()); };
    const auto set = [&](uint32_t* bits, int64_t rows, const std::vector<int64_t>& tokens,
                         bool fresh, const uint8_t* allowed) {
      return decode_set_bits(bits, rows, m_.V, tokens.data(), count(tokens), fresh, allowed,
                             runtime_);
    };
    Status status = set(ends_, 1, o_.eos, true, nullptr);
    if (status && s_.banned != nullptr) {
      status = set(s_.banned, s_.ban_rows, o_.banned, true, o_.allowed);
    }
    if (!status || !early_bans()) return status;
    status = set(late_, s_.ban_rows, o_.banned, true, o_.allowed);
    return status ? set(s_.banned, s_.ban_rows, o_.eos, false, nullptr) : status;
  }

  // -- a step ------------------------------------------------------------------------------------

  // Reads the states of `parity` and writes the others. Launches and memory are those of every step
  // of this parity.
  Status step(int parity, const Runtime& outer) {
    const Runtime runtime = step_memory_.begin(outer);
    Status status = gather(parity, runtime);
    const void* features = nullptr;
    if (status) status = layers(parity, runtime, &features);
    if (status && attends()) {
      status = attend(parity, features, runtime);
      features = features_.of[1 - parity];
    }
    if (status) status = vocabulary(features, runtime);
    return status ? choose(runtime) : status;
  }

  Status gather(int parity, const Runtime& runtime) {
    DecodeGather g{};
    g.state = s_;
    g.x = x_;
    g.embedding = m_.embedding;
    g.width = m_.E * size();
    g.second_width = second_width() * size();
    g.fed = m_.input_feeding;
    if (second_width() > 0) g.second = g.fed ? features_.of[parity] : sources_.context;
    return decode_gather(g, runtime);
  }

  Status layers(int parity, const Runtime& runtime, const void** features) {
    const void* x = x_;
    for (int64_t l = 0; l < m_.L; ++l) {
      StepParams p{};
      p.cell = m_.cell;
      p.dtype = m_.dtype;
      p.B = s_.rows;
      p.I = p.x_stride_b = l == 0 ? inputs() : m_.H;
      p.H = p.P = m_.H;
      p.weights = m_.layers[l];
      p.x = x;
      p.h = hidden_[l].of[parity];
      p.h_out = hidden_[l].of[1 - parity];
      p.c = cells_[l].of[parity];
      p.c_out = cells_[l].of[1 - parity];
      p.from = s_.from;
      if (const Status status = cuda::step(p, runtime); !status) return status;
      x = p.h_out;
    }
    *features = x;
    return Status::ok();
  }

  Status attend(int parity, const void* query, const Runtime& runtime) {
    AttentionStepParams a{};
    a.score = m_.score;
    a.dtype = m_.dtype;
    a.B = s_.rows;
    a.Q = m_.H;
    a.A = m_.A;
    a.S = sources_.S;
    a.C = m_.C;
    a.scale = m_.scale;
    a.query = query;
    a.w_query = m_.w_query;
    a.v = m_.v;
    a.keys = sources_.keys;
    a.keys_stride_b = sources_.S * m_.A;
    a.keys_stride_s = m_.A;
    a.values = sources_.values;
    a.values_stride_b = sources_.S * m_.C;
    a.values_stride_s = m_.C;
    a.lengths = sources_.lengths;
    a.source = s_.K > 1 ? s_.source : nullptr;
    a.context = context_;
    a.weights = weights_;
    if (const Status status = attention_step(a, runtime); !status) return status;
    // tanh(W_c c + W_s s) is an Elman step from s on the input c.
    StepParams p{};
    p.cell = Cell::kRnnTanh;
    p.dtype = m_.dtype;
    p.B = s_.rows;
    p.I = p.x_stride_b = m_.C;
    p.H = p.P = m_.H;
    p.weights.w_ih = m_.combine_ih;
    p.weights.w_hh = m_.combine_hh;
    p.x = context_;
    p.h = query;
    p.h_out = features_.of[1 - parity];
    return cuda::step(p, runtime);
  }

  Status vocabulary(const void* features, const Runtime& runtime) {
    VocabPickParams p{};
    p.dtype = m_.dtype;
    p.B = s_.rows;
    p.H = m_.H;
    p.V = m_.V;
    p.K = s_.C;
    p.hidden = features;
    p.weight = m_.output_weight;
    p.bias = m_.output_bias;
    p.banned = reinterpret_cast<const int32_t*>(s_.banned);
    p.rows_a_ban = s_.ban_rows > 1 ? s_.K : std::max<int64_t>(s_.rows, 1);
    p.plain = true;
    p.log_probs = s_.log_probs;
    p.indices = s_.indices;
    if (draws_all()) {
      p.temperature = o_.temperature;
      p.seed = s_.seed;
      p.step = s_.step;
      p.rows = s_.row_ids;
    }
    return vocab_pick(p, runtime);
  }

  Status choose(const Runtime& runtime) {
    if (beam()) return decode_beam(s_, {o_.length_penalty, o_.early_stopping}, runtime);
    if (!draws_some()) return decode_pick(s_, runtime);
    return decode_draw(s_, {o_.temperature, o_.top_p, std::log(std::max(o_.min_p, 0.0))}, runtime);
  }

  const DecodeModel& m_;
  const DecodeSources& sources_;
  const DecodeOptions& o_;
  const Runtime& runtime_;
  StepMemory step_memory_;
  DecodeState s_{};
  uint32_t *ends_ = nullptr, *late_ = nullptr;
  std::vector<Pair> hidden_, cells_;
  Pair features_{};
  void *x_ = nullptr, *context_ = nullptr, *weights_ = nullptr;
  bool failed_ = false;
};

}  // namespace

std::string refuse_decode(const DecodeModel& model, const DecodeOptions& o) {
  if (model.P != model.H) return "a projection";
  if (o.shortlist != nullptr || o.make_scores) return "shortlists of rows and scores of all tokens";
  if (o.mode == DecodeMode::kGiven) return "given tokens";
  if (model.tokens != nullptr) return "a shortlist";
  if (model.screen.panels != nullptr) return "int8 weights";
  if (!o.phrases.empty() || o.no_repeat_ngram_size != 0) return "phrases and n-grams";
  if (o.repetition_penalty != 1) return "repetition_penalty";
  if (o.prefix != nullptr) return "a prefix";
  if (o.groups != 1 || o.coverage_penalty != 0) return "groups of beams and coverage_penalty";
  if (o.attentions || o.states) return "attentions and states";
  if (o.on_step != nullptr) return "a callback";
  return "";
}

Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                        const DecodeOptions& options, const Runtime& runtime,
                        const std::function<void(int64_t, DecodeOutput*)>& make_rows,
                        DecodeOutput* output) {
  if (const std::string what = refuse_decode(model, options); !what.empty()) {
    return Status::invalid("decode: the loop on a GPU does not take " + what);
  }
  if (sources.B == 0) {
    make_rows(0, output);
    return Status::ok();
  }
  Decoding decoding(model, sources, options, runtime);
  Status status = decoding.prepare();
  if (status) status = decoding.run();
  return status ? decoding.finish(make_rows, output) : status;
}

}  // namespace seq2seq_ext::kernels::cuda
