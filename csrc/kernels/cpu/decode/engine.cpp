// SPDX-License-Identifier: MIT
#include "cpu/decode/engine.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "cpu/decode/report.h"
#include "cpu/decode/stack.h"
#include "cpu/decode/trace.h"

namespace seq2seq_ext::kernels::cpu {
namespace decode {
namespace {

// Rows in flight at most. More would not save passes over the weights' time any more, and want more
// work memory.
constexpr int64_t kMostRows = 256;
constexpr int64_t kMostLogits = int64_t{16} << 20;  // of rows that want all of theirs
constexpr int64_t kMostKept = 1024;     // best words that a row keeps on the way; more are selected
constexpr int64_t kMostScreened = 128;  // of more candidates too many are computed anew
constexpr double kLeastDrawn = 1e-30;   // a temperature: below, float32 logits over it overflow
constexpr int64_t kMinWorkPerThread = 64 << 10;  // multiply-adds of a step

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
        strategy_(make_strategy(options, sources, model.V)),
        constraints_(options, sources.B, model.V, model.tokens),
        task_(task()),
        rows_most_(most_rows()),
        threads_(threads(runtime)),
        stack_(model, sources, kernels, rows_most_),
        vocab_(make_vocab(kernels)),
        place_(options.slots),
        from_(rows_most_),
        source_(rows_most_),
        keys_(rows_most_),
        row_constraints_(rows_most_),
        constraint_pointers_(rows_most_, nullptr),
        report_(options, sources.B),
        choosers_(threads_),
        traces_(sources.B) {
    rows_.reserve(rows_most_);
    before_.reserve(rows_most_);
    for (Chooser& chooser : choosers_) {
      chooser.candidates.resize(options.slots);
      chooser.weights.resize(options.slots);
    }
    if (options.coverage_penalty != 0 && options.mode == DecodeMode::kBeam) {
      wide_weights_.resize(rows_most_ * sources.S);
    }
  }

  Status run(const Runtime& runtime, DecodeResult* result) {
    run_team(runtime, threads_, [this](const Member& member) { loop(member); });
    if (failed_) return Status::invalid(error_);
    const int64_t S = options_.attentions ? sources_.S : 0, H = options_.states ? model_.P : 0;
    const int64_t C = options_.states && attends() ? model_.C : 0;
    assemble(traces_, options_.results, S, H, C, result);
    return Status::ok();
  }

 private:
  // -- sizes and parts ---------------------------------------------------------------------------

  VocabTask task() const {
    if (options_.mode == DecodeMode::kGiven) return VocabTask::kForced;
    if (options_.mode != DecodeMode::kSample) return VocabTask::kBest;
    if (options_.top_k > 0) {
      return options_.top_k <= kMostKept ? VocabTask::kBest : VocabTask::kNucleus;
    }
    // Noise is keyed by tokens; the kernel that draws knows words.
    const bool all = options_.top_p >= 1 && options_.min_p <= 0;
    const bool fits = options_.temperature >= kLeastDrawn && model_.tokens == nullptr;
    return all && fits ? VocabTask::kDraw : VocabTask::kNucleus;
  }

  int64_t candidates() const { return std::clamp<int64_t>(strategy_->wanted(), 1, model_.V); }

  int64_t most_rows() const {
    const int64_t slots = options_.slots;
    if (options_.on_step != nullptr) return std::max<int64_t>(sources_.B, 1) * slots;
    int64_t rows = kMostRows;
    if (task_ == VocabTask::kNucleus) rows = std::min(rows, kMostLogits / model_.V);
    if (task_ == VocabTask::kBest) rows = std::min(rows, (int64_t{4} << 20) / candidates());
    rows = std::max(rows / slots, int64_t{1}) * slots;
    return std::min(rows, std::max<int64_t>(sources_.B, 1) * slots);
  }

  int threads(const Runtime& runtime) const {
    const int64_t work = model_.V * model_.P + Stack::work(model_, sources_);
    const int64_t useful = rows_most_ * work / kMinWorkPerThread;
    return static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
  }

  VocabPart* make_vocab(const KernelTable& kernels) const {
    VocabPartParams v{};
    v.dtype = model_.dtype;
    v.task = task_;
    v.B = rows_most_;
    v.H = model_.P;
    v.V = model_.V;
    v.K = task_ == VocabTask::kNucleus ? options_.top_k : candidates();
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
    return screened ? kernels.make_vocab_screen(v, threads_) : kernels.make_vocab_part(v, threads_);
  }

  // -- the loop ----------------------------------------------------------------------------------

  void loop(const Member& member) {
    for (;;) {
      if (member.index == 0) {
        guarded([&] { begin_step(); });
        if (failed_) rows_.clear();  // half begun: nobody works on that
      }
      member.barrier->wait();
      if (rows_.empty()) return;
      guarded([&] { gather(member); });
      member.barrier->wait();
      stack_.run(member);
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
    if (report_.wanted() && !rows_.empty() && !report_.tell()) {
      throw std::runtime_error("decode: stopped by on_step");
    }
    stack_.begin_step();
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
      if (!enter(waiting_++, places)) continue;  // done before its first step: takes no room
      ++places;
      taken += options_.slots;
    }
    point_parts();
  }

  void add_row(int64_t source, int64_t slot, int64_t place) {
    from_[rows_.size()] = place;
    source_[rows_.size()] = source;
    rows_.push_back({source, slot});
  }

  // Returns whether the source has any row.
  bool enter(int64_t source, int64_t place) {
    Trace& trace = traces_[source];
    trace.begin(options_.slots, constraints_.needs_history(), extras());
    strategy_->begin(source, trace.last());
    stack_.enter(source, place);
    bool any = false;
    for (int64_t slot = 0; slot < options_.slots; ++slot) {
      if (!trace.last()[slot].live) continue;
      add_row(source, slot, place);
      any = true;
    }
    if (!any) finish(source);
    return any;
  }

  void point_parts() {
    stack_.set_rows(static_cast<int64_t>(rows_.size()), from_.data(), source_.data());
    vocab_->params.B = static_cast<int64_t>(rows_.size());
    vocab_->params.features = stack_.features();
    vocab_->params.keys = keys_.data();
    const bool constrained = constraints_.any() || task_ == VocabTask::kForced;
    vocab_->params.constraints = constrained ? constraint_pointers_.data() : nullptr;
  }

  // What the layers read, and what each row may choose.
  void gather(const Member& member) {
    const int64_t count = static_cast<int64_t>(rows_.size());
    for (int64_t i = member.begin(count); i < member.end(count); ++i) {
      const Row& row = rows_[i];
      const Trace& trace = traces_[row.source];
      const int64_t step = trace.step();
      stack_.gather(i, step == 0 ? options_.start_token : trace.last()[row.slot].token);
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
    constraint_pointers_[i] = nullptr;  // until `out` is whole: what follows may throw
    if (task_ == VocabTask::kForced) {
      out.forced = constraints_.word_of(options_.given[row.source * options_.given_size + step]);
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
      if (!found.finite) trace.note_undefined(slot);
      candidates[slot] = &found;
      keep_extras(i, trace.extras(slot));
      if (!wide_weights_.empty()) {
        stack_.copy_weights(i, wide_weights_.data() + i * sources_.S);
        weights[slot] = wide_weights_.data() + i * sources_.S;
      }
    }
    Choice* const choices = trace.next();
    strategy_->advance(source, trace.step(), candidates.data(), weights.data(), choices);
    trace.advance();
    const bool live = std::any_of(choices, choices + options_.slots,
                                  [](const Choice& choice) { return choice.live; });
    if (report_.wanted()) report_.note(source, choices, candidates.data(), live);
    if (!live) finish(source);
  }

  // -- what is kept and told besides -------------------------------------------------------------

  int64_t extras() const {
    return (options_.attentions ? sources_.S : 0) +
           (options_.states ? model_.P + (attends() ? model_.C : 0) : 0);
  }

  bool attends() const { return model_.context == DecodeContext::kAttention; }

  // In the order in which `assemble` takes them.
  void keep_extras(int64_t row, double* to) const {
    if (options_.attentions) {
      stack_.copy_weights(row, to);
      to += sources_.S;
    }
    if (!options_.states) return;
    stack_.copy_hidden(row, to);
    if (attends()) stack_.copy_context(row, to + model_.P);
  }

  // A given token that the shortlist leaves out.
  static Candidates outside() {
    static const int64_t token = 0;
    static const double impossible = -kInfinity;
    return {true, false, 1, &token, &impossible, &impossible, 0};
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
  const std::unique_ptr<Strategy> strategy_;
  const Constraints constraints_;
  const VocabTask task_;
  const int64_t rows_most_;
  const int threads_;
  Stack stack_;
  const std::unique_ptr<VocabPart> vocab_;

  std::vector<Row> rows_;               // in flight, a source's together and by ascending slot
  std::vector<Row> before_;             // those of the step before
  std::vector<int64_t> place_;          // (K): where a source's slot was among those
  std::vector<int64_t> from_, source_;  // (rows): see Stack::set_rows
  std::vector<DrawKey> keys_;
  std::vector<RowConstraints> row_constraints_;
  std::vector<const RowConstraints*> constraint_pointers_;
  Report report_;
  std::vector<Chooser> choosers_;     // (threads)
  std::vector<double> wide_weights_;  // (rows, S), coverage penalty only
  std::vector<Trace> traces_;         // (B)
  int64_t waiting_ = 0;               // the first source that has not begun
  std::atomic<bool> failed_{false};
  std::string error_;
};

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
    return decode::Engine(model, sources, options, *kernels, runtime).run(runtime, result);
  } catch (const std::exception& e) {  // out of memory
    return Status::invalid(e.what());
  }
}

}  // namespace seq2seq_ext::kernels::cpu
