// SPDX-License-Identifier: MIT
#include "cpu/decode/engine.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "cpu/decode/parts.h"
#include "cpu/decode/trace.h"
#include "cpu/isa.h"
#include "cpu/scratch.h"

namespace seq2seq_ext::kernels::cpu {
namespace decode {
namespace {

// Rows in flight at most. More would not save passes over the weights' time any more, and want more
// work memory.
constexpr int64_t kMostRows = 256;
constexpr int64_t kMostLogits = int64_t{16} << 20;  // of rows that want all of theirs
constexpr int64_t kMostScreened = 128;              // of more candidates too many are computed anew
constexpr int64_t kMinWorkPerThread = 64 << 10;     // multiply-adds of a step

struct Row {
  int64_t source, slot;
  bool given = false;  // kGiven: a token outside the shortlist, which no logits are needed for
};

class Engine {
 public:
  Engine(const DecodeModel& model, const DecodeSources& sources, const DecodeOptions& options,
         const KernelTable& kernels, const Runtime& runtime)
      : model_(model),
        sources_(sources),
        options_(options),
        size_(size_of(model.dtype)),
        state_size_(size_ == 8 ? 8 : 4),
        strategy_(make_strategy(options, sources, model.V)),
        constraints_(options, sources.B, model.V, model.tokens),
        task_(task()),
        rows_most_(most_rows()),
        threads_(threads(runtime)),
        lstm_(model.cell == Cell::kLstm),
        attends_(model.context == DecodeContext::kAttention),
        x_((rows_most_)*input_size() * size_),
        traces_(sources.B) {
    // A source that enters brings its first state to a place behind those of the rows before.
    const int64_t places = 2 * rows_most_;
    for (int64_t l = 0; l < model.L; ++l) {
      for (int i = 0; i < 2; ++i) {
        hidden_.push_back(std::make_unique<ScratchArray<char>>(places * model.H * size_));
        cells_.push_back(
            std::make_unique<ScratchArray<char>>(lstm_ ? places * model.H * state_size_ : 0));
      }
    }
    for (auto& features : features_) {
      features = std::make_unique<ScratchArray<char>>(attends_ ? places * model.H * size_ : 0);
    }
    if (attends_) {
      context_ = std::make_unique<ScratchArray<char>>(rows_most_ * model.C * size_);
      weights_ = std::make_unique<ScratchArray<char>>(rows_most_ * sources.S * size_);
    }
    if (options.coverage_penalty != 0 && options.mode == DecodeMode::kBeam) {
      wide_weights_.resize(rows_most_ * sources.S);
    }
    make_parts(kernels);
    rows_.reserve(rows_most_);
    before_.reserve(rows_most_);
    place_.resize(options.slots);
    choosers_.resize(threads_);
    for (Chooser& chooser : choosers_) {
      chooser.candidates.resize(options.slots);
      chooser.weights.resize(options.slots);
    }
    from_.resize(rows_most_);
    source_.resize(rows_most_);
    keys_.resize(rows_most_);
    row_constraints_.resize(rows_most_);
    constraint_pointers_.resize(rows_most_, nullptr);
  }

  void run(const Runtime& runtime) {
    run_team(runtime, threads_, [this](const Member& member) { loop(member); });
  }

  void assemble(DecodeResult* result) const;

 private:
  // -- sizes and parts ---------------------------------------------------------------------------

  int64_t input_size() const {
    return model_.E + (model_.context == DecodeContext::kEveryStep ? model_.C : 0) +
           (model_.input_feeding ? model_.H : 0);
  }

  VocabTask task() const {
    if (options_.mode == DecodeMode::kGiven) return VocabTask::kForced;
    if (options_.mode != DecodeMode::kSample || options_.top_k > 0) return VocabTask::kBest;
    // Noise is keyed by tokens; the kernel that draws knows words.
    const bool all = options_.top_p >= 1 && options_.min_p <= 0;
    return all && model_.tokens == nullptr ? VocabTask::kDraw : VocabTask::kNucleus;
  }

  int64_t candidates() const { return std::clamp<int64_t>(strategy_->wanted(), 1, model_.V); }

  int64_t most_rows() const {
    const int64_t slots = options_.slots;
    int64_t rows = kMostRows;
    if (task_ == VocabTask::kNucleus) rows = std::min(rows, kMostLogits / model_.V);
    if (task_ == VocabTask::kBest) rows = std::min(rows, (int64_t{4} << 20) / candidates());
    rows = std::max(rows / slots, int64_t{1}) * slots;
    return std::min(rows, std::max<int64_t>(sources_.B, 1) * slots);
  }

  int threads(const Runtime& runtime) const {
    const int64_t gates = num_gates(model_.cell) * model_.H;
    int64_t work = model_.V * model_.H + gates * (input_size() + model_.H) +
                   (model_.L - 1) * gates * 2 * model_.H;
    if (attends_) {
      work += model_.H * (model_.C + model_.H) + sources_.S * (model_.A + model_.C);
    }
    const int64_t useful = rows_most_ * work / kMinWorkPerThread;
    return static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
  }

  void make_parts(const KernelTable& kernels) {
    for (int64_t l = 0; l < model_.L; ++l) {
      StepParams p{};
      p.cell = model_.cell;
      p.dtype = model_.dtype;
      p.B = rows_most_;
      p.I = p.x_stride_b = l == 0 ? input_size() : model_.H;
      p.H = p.P = model_.H;
      p.weights = model_.layers[l];
      steps_.emplace_back(kernels.make_step_part(p));
    }
    if (attends_) {
      AttentionStepParams a{};
      a.score = model_.score;
      a.dtype = model_.dtype;
      a.B = rows_most_;
      a.Q = model_.H;
      a.A = model_.A;
      a.S = sources_.S;
      a.C = model_.C;
      a.scale = model_.scale;
      a.w_query = model_.w_query;
      a.v = model_.v;
      a.keys = sources_.keys;
      a.keys_stride_b = sources_.S * model_.A;
      a.keys_stride_s = model_.A;
      a.values = sources_.values;
      a.values_stride_b = sources_.S * model_.C;
      a.values_stride_s = model_.C;
      a.lengths = sources_.lengths;
      a.context = context_->data();
      a.weights = weights_->data();
      attention_.reset(kernels.make_attention_part(a));
      StepParams p{};
      p.cell = Cell::kRnnTanh;
      p.dtype = model_.dtype;
      p.B = rows_most_;
      p.I = p.x_stride_b = model_.C;
      p.H = p.P = model_.H;
      p.weights.w_ih = model_.combine_ih;
      p.weights.w_hh = model_.combine_hh;
      p.x = context_->data();
      combine_.reset(kernels.make_step_part(p));
    }
    VocabPartParams v{};
    v.dtype = model_.dtype;
    v.task = task_;
    v.B = rows_most_;
    v.H = model_.H;
    v.V = model_.V;
    v.K = candidates();
    v.weight = model_.output_weight;
    v.bias = model_.output_bias;
    v.tokens = model_.tokens;
    v.temperature = options_.temperature;
    v.top_p = options_.top_p;
    v.min_p = options_.min_p;
    v.repetition_penalty = options_.repetition_penalty;
    v.screen = model_.screen;
    const bool screened = v.screen.panels != nullptr && task_ == VocabTask::kBest &&
                          model_.tokens == nullptr && v.K <= kMostScreened;
    vocab_.reset(screened ? kernels.make_vocab_screen(v, threads_)
                          : kernels.make_vocab_part(v, threads_));
  }

  // -- the loop ----------------------------------------------------------------------------------

  void loop(const Member& member) {
    for (;;) {
      if (member.index == 0) guarded([&] { begin_step(); });
      member.barrier->wait();
      if (rows_.empty()) return;
      guarded([&] { gather(member); });
      member.barrier->wait();
      for (auto& step : steps_) {
        step->run(member);
        member.barrier->wait();
      }
      if (attends_) {
        attention_->run(member);
        member.barrier->wait();
        combine_->run(member);
        member.barrier->wait();
      }
      guarded([&] { vocab_->run(member); });
      member.barrier->wait();
      guarded([&] { choose(member); });
      member.barrier->wait();
    }
  }

  // Whoever throws (out of memory) lets the team go on to the next step, where all stop.
  template <class Body>
  void guarded(const Body& body) {
    try {
      body();
    } catch (const std::exception& e) {
      if (!failed_.exchange(true)) error_ = e.what();
    }
  }

  // Which rows there are, and where everything of theirs is.
  void begin_step() {
    parity_ = 1 - parity_;
    rows_.swap(before_);
    rows_.clear();
    if (failed_) return;
    const bool beam = options_.mode == DecodeMode::kBeam;
    const int64_t count = static_cast<int64_t>(before_.size());
    int64_t running = 0;  // sources
    for (int64_t first = 0; first < count;) {
      const int64_t source = before_[first].source;
      int64_t last = first;
      for (; last < count && before_[last].source == source; ++last) {
        place_[before_[last].slot] = last;
      }
      first = last;
      if (traces_[source].done()) continue;
      ++running;
      const Choice* choices = traces_[source].last();
      for (int64_t slot = 0; slot < options_.slots; ++slot) {
        if (choices[slot].live) add_row(source, slot, place_[choices[slot].parent]);
      }
    }
    // A source's beams may die out and come back; samples only end.
    int64_t taken = beam ? running * options_.slots : static_cast<int64_t>(rows_.size());
    int64_t places = count;  // of states: those of the rows before, then those that enter
    while (waiting_ < sources_.B && taken + options_.slots <= rows_most_) {
      enter(waiting_++, places++);
      taken += options_.slots;
    }
    point_parts();
  }

  void add_row(int64_t source, int64_t slot, int64_t place) {
    from_[rows_.size()] = place;
    source_[rows_.size()] = source;
    rows_.push_back({source, slot});
  }

  void enter(int64_t source, int64_t place) {
    Trace& trace = traces_[source];
    trace.begin(options_.slots, constraints_.needs_history(), options_.attentions, sources_.S);
    strategy_->begin(source, trace.last());
    const int64_t width = model_.H * size_, state = model_.H * state_size_;
    for (int64_t l = 0; l < model_.L; ++l) {
      std::memcpy(hidden_at(l, parity_, place),
                  static_cast<const char*>(sources_.hidden[l]) + source * width, width);
      if (lstm_) {
        std::memcpy(cells_[2 * l + parity_]->data() + place * state,
                    static_cast<const char*>(sources_.cells[l]) + source * state, state);
      }
    }
    if (model_.input_feeding) std::memset(features_[parity_]->data() + place * width, 0, width);
    bool any = false;
    for (int64_t slot = 0; slot < options_.slots; ++slot) {
      if (!trace.last()[slot].live) continue;
      add_row(source, slot, place);
      any = true;
    }
    if (!any) finish(source);
  }

  char* hidden_at(int64_t layer, int parity, int64_t place) const {
    return hidden_[2 * layer + parity]->data() + place * model_.H * size_;
  }

  // States are read at parity_ and written at 1 - parity_.
  void point_parts() {
    const int64_t count = static_cast<int64_t>(rows_.size());
    const void* x = x_.data();
    for (int64_t l = 0; l < model_.L; ++l) {
      StepParams& p = steps_[l]->params;
      p.B = count;
      p.x = x;
      p.h = hidden_at(l, parity_, 0);
      p.h_out = hidden_at(l, 1 - parity_, 0);
      p.c = cells_[2 * l + parity_]->data();
      p.c_out = cells_[2 * l + 1 - parity_]->data();
      p.from = from_.data();
      x = p.h_out;
    }
    const void* features = x;
    if (attends_) {
      attention_->params.B = count;
      attention_->params.query = x;
      attention_->params.source = source_.data();
      combine_->params.B = count;
      combine_->params.h = x;
      combine_->params.h_out = features_[1 - parity_]->data();
      features = combine_->params.h_out;
    }
    vocab_->params.B = count;
    vocab_->params.features = features;
    vocab_->params.keys = keys_.data();
    const bool constrained = constraints_.any() || task_ == VocabTask::kForced;
    vocab_->params.constraints = constrained ? constraint_pointers_.data() : nullptr;
  }

  // What the layers read, and what each row may choose.
  void gather(const Member& member) {
    const int64_t count = static_cast<int64_t>(rows_.size()), width = input_size() * size_;
    for (int64_t i = member.begin(count); i < member.end(count); ++i) {
      const Row& row = rows_[i];
      Trace& trace = traces_[row.source];
      const int64_t step = trace.step();
      const int64_t token = step == 0 ? options_.start_token : trace.last()[row.slot].token;
      char* x = x_.data() + i * width;
      std::memcpy(x, static_cast<const char*>(model_.embedding) + token * model_.E * size_,
                  model_.E * size_);
      x += model_.E * size_;
      if (model_.context == DecodeContext::kEveryStep) {
        const int64_t bytes = model_.C * size_;
        std::memcpy(x, static_cast<const char*>(sources_.context) + row.source * bytes, bytes);
      } else if (model_.input_feeding) {
        const int64_t bytes = model_.H * size_;
        std::memcpy(x, features_[parity_]->data() + from_[i] * bytes, bytes);
      }
      constrain(i, step, trace);
      if (task_ == VocabTask::kDraw) {
        const int64_t id = options_.row_ids == nullptr ? row.source : options_.row_ids[row.source];
        keys_[i] = {options_.seed, static_cast<uint32_t>(step),
                    static_cast<uint64_t>(id) + (static_cast<uint64_t>(row.slot) << 32)};
      }
    }
  }

  void constrain(int64_t i, int64_t step, const Trace& trace) {
    const Row& row = rows_[i];
    RowConstraints& out = row_constraints_[i];
    if (task_ == VocabTask::kForced) {
      out.forced = word_of(options_.given[row.source * options_.given_size + step]);
      constraint_pointers_[i] = &out;
      rows_[i].given = out.forced < 0;
      if (rows_[i].given) out.forced = 0;
      return;
    }
    if (!constraints_.any()) return;
    constraints_.row(row.source, step, trace.history(row.slot), &out);
    out.seen_logits.resize(out.seen.size());
    const bool none = out.banned == nullptr && out.also_banned.empty() && out.seen.empty();
    constraint_pointers_[i] = none && out.forced < 0 ? nullptr : &out;
  }

  int64_t word_of(int64_t token) const {
    if (model_.tokens == nullptr) return token;
    const int64_t* const end = model_.tokens + model_.V;
    const int64_t* const found = std::lower_bound(model_.tokens, end, token);
    return found != end && *found == token ? found - model_.tokens : -1;
  }

  // Each source's rows to its strategy. Members share sources out.
  void choose(const Member& member) {
    const int64_t count = static_cast<int64_t>(rows_.size());
    int64_t first = member.begin(count), last = member.end(count);
    // A source goes to the member that has its first row.
    while (first > 0 && first < count && rows_[first].source == rows_[first - 1].source) ++first;
    while (first < last) {
      int64_t end = first + 1;
      while (end < count && rows_[end].source == rows_[first].source) ++end;
      choose_for(first, end, choosers_[member.index]);
      first = end;
    }
  }

  // One a thread: what a source's slots found.
  struct Chooser {
    std::vector<const Candidates*> candidates;
    std::vector<const double*> weights;
  };

  void choose_for(int64_t first, int64_t end, Chooser& chooser) {
    auto& [candidates, weights] = chooser;
    const int64_t source = rows_[first].source;
    Trace& trace = traces_[source];
    std::fill(candidates.begin(), candidates.end(), nullptr);
    std::fill(weights.begin(), weights.end(), nullptr);
    for (int64_t i = first; i < end; ++i) {
      const int64_t slot = rows_[i].slot;
      Candidates& found = vocab_->candidates[i];
      if (rows_[i].given && found.finite) found = outside();
      if (!found.finite) note_undefined(trace, slot);
      candidates[slot] = &found;
      if (options_.attentions) widen_weights(i, trace.attention(slot));
      if (!wide_weights_.empty()) {
        widen_weights(i, wide_weights_.data() + i * sources_.S);
        weights[slot] = wide_weights_.data() + i * sources_.S;
      }
    }
    Choice* const choices = trace.next();
    strategy_->advance(source, trace.step(), candidates.data(), weights.data(), choices);
    trace.advance();
    const bool live = std::any_of(choices, choices + options_.slots,
                                  [](const Choice& choice) { return choice.live; });
    if (!live) finish(source);
  }

  // A given token that the shortlist leaves out.
  static Candidates outside() {
    static const int64_t token = 0;
    static const double impossible = -kInfinity;
    return {true, false, 1, &token, &impossible, &impossible, 0};
  }

  void note_undefined(Trace& trace, int64_t slot) {
    if (trace.undefined_step < 0 || slot < trace.undefined_slot) {
      trace.undefined_step = trace.step();
      trace.undefined_slot = slot;
    }
  }

  void widen_weights(int64_t row, double* to) const {
    const int64_t S = sources_.S;
    const char* from = weights_->data() + row * S * size_;
    for (int64_t s = 0; s < S; ++s) {
      if (model_.dtype == DType::kFloat64) {
        to[s] = reinterpret_cast<const double*>(from)[s];
      } else if (model_.dtype == DType::kFloat32) {
        to[s] = reinterpret_cast<const float*>(from)[s];
      } else {
        to[s] = to_float(reinterpret_cast<const BFloat16*>(from)[s]);
      }
    }
  }

  void finish(int64_t source) {
    std::vector<Hypothesis> found(options_.results);
    strategy_->finish(source, found.data());
    traces_[source].follow(found, options_.mode == DecodeMode::kBeam);
    traces_[source].release();
  }

  const DecodeModel& model_;
  const DecodeSources& sources_;
  const DecodeOptions& options_;
  const int64_t size_, state_size_;
  const std::unique_ptr<Strategy> strategy_;
  const Constraints constraints_;
  const VocabTask task_;
  const int64_t rows_most_;
  const int threads_;
  const bool lstm_, attends_;

  ScratchArray<char> x_;                                     // (rows, input size) dtype
  std::vector<std::unique_ptr<ScratchArray<char>>> hidden_;  // (L, 2): (places, H) dtype
  std::vector<std::unique_ptr<ScratchArray<char>>> cells_;   // (L, 2): (places, H) state
  std::unique_ptr<ScratchArray<char>> features_[2];        // (places, H) dtype: attentional vectors
  std::unique_ptr<ScratchArray<char>> context_, weights_;  // (rows, C), (rows, S) dtype
  std::vector<double> wide_weights_;                       // (rows, S), coverage penalty only

  std::vector<std::unique_ptr<StepPart>> steps_;
  std::unique_ptr<AttentionPart> attention_;
  std::unique_ptr<StepPart> combine_;
  std::unique_ptr<VocabPart> vocab_;

  std::vector<Row> rows_;               // in flight, a source's together and by ascending slot
  std::vector<Row> before_;             // those of the step before
  std::vector<int64_t> place_;          // (K): where a source's slot was among those
  std::vector<int64_t> from_, source_;  // (rows)
  std::vector<DrawKey> keys_;
  std::vector<RowConstraints> row_constraints_;
  std::vector<const RowConstraints*> constraint_pointers_;
  std::vector<Chooser> choosers_;  // (threads)
  std::vector<Trace> traces_;      // (B)
  int64_t waiting_ = 0;            // the first source that has not begun
  int parity_ = 0;
  std::atomic<bool> failed_{false};
  std::string error_;

  friend Status decode_with(const KernelTable&, const DecodeModel&, const DecodeSources&,
                            const DecodeOptions&, const Runtime&, DecodeResult*);
};

void Engine::assemble(DecodeResult* result) const {
  const int64_t per = options_.results, R = sources_.B * per, S = sources_.S;
  DecodeResult& out = *result;
  out = {};
  for (int64_t b = 0; b < sources_.B; ++b) {
    if (traces_[b].undefined_step >= 0 && out.undefined_source < 0) {
      out.undefined_source = b;
      out.undefined_step = traces_[b].undefined_step;
    }
    for (const Trace::Row& row : traces_[b].rows()) {
      out.T = std::max(out.T, static_cast<int64_t>(row.tokens.size()));
    }
  }
  out.lengths.resize(R);
  out.ranks.resize(R);
  out.tokens.resize(R * out.T);
  out.log_probs.resize(R * out.T);
  if (options_.attentions) out.attentions.resize(R * out.T * S);
  for (int64_t r = 0; r < R; ++r) {
    const Trace::Row& row = traces_[r / per].rows()[r % per];
    out.lengths[r] = static_cast<int64_t>(row.tokens.size());
    out.ranks[r] = row.rank;
    std::copy(row.tokens.begin(), row.tokens.end(), out.tokens.begin() + r * out.T);
    std::copy(row.log_probs.begin(), row.log_probs.end(), out.log_probs.begin() + r * out.T);
    std::copy(row.attentions.begin(), row.attentions.end(),
              out.attentions.begin() + r * (options_.attentions ? out.T * S : 0));
  }
}

Status decode_with(const KernelTable& kernels, const DecodeModel& model,
                   const DecodeSources& sources, const DecodeOptions& options,
                   const Runtime& runtime, DecodeResult* result) {
  Engine engine(model, sources, options, kernels, runtime);
  engine.run(runtime);
  if (engine.failed_) return Status::invalid(engine.error_);
  engine.assemble(result);
  return Status::ok();
}

}  // namespace
}  // namespace decode

Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                        const DecodeOptions& options, const Runtime& runtime,
                        DecodeResult* result) {
  std::string error;
  const KernelTable* kernels = kernel_table(&error);
  if (kernels == nullptr) return Status::invalid(error);
  if (model.dtype == DType::kFloat16) {
    return Status::invalid("decode: expected float32, float64 or bfloat16");
  }
  try {
    return decode::decode_with(*kernels, model, sources, options, runtime, result);
  } catch (const std::exception& e) {  // out of memory
    return Status::invalid(e.what());
  }
}

}  // namespace seq2seq_ext::kernels::cpu
