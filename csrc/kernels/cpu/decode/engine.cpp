// SPDX-License-Identifier: MIT
#include "cpu/decode/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "cpu/decode/models.h"
#include "cpu/decode/plan.h"
#include "cpu/decode/report.h"
#include "cpu/decode/scores.h"
#include "cpu/decode/trace.h"

namespace seq2seq_ext::kernels::cpu {
namespace decode {
namespace {

constexpr int64_t kMinWorkPerThread = 64 << 10;      // multiply-adds of a step
constexpr std::chrono::milliseconds kAskEvery{100};  // whether to go on
constexpr int64_t kMostRoom = 4096;  // steps that room is made for; more of them allocate some

struct Row {
  int64_t source, slot;
  bool given = false;  // kGiven: a token outside the shortlist, which no logits are needed for
};

class Engine {
 public:
  Engine(const std::vector<DecodeMember>& members, const DecodeOptions& options,
         const KernelTable& kernels, const Runtime& runtime)
      : plan_(members, options),
        model_(plan_.model),
        sources_(plan_.sources),
        options_(plan_.options),
        state_(state_of(members)),
        task_(plan_.task),
        strategy_(make_strategy(options_, units(), plan_.words)),
        constraints_(options_, sources_.B, model_.V, model_.tokens),
        rows_most_(rows()),
        room_(std::min(kMostRoom, options_.mode == DecodeMode::kGiven ? options_.given_size
                                                                      : options_.max_new_tokens)),
        threads_(threads(members, runtime)),
        models_(members, plan_, kernels, runtime, threads_),
        place_(options_.slots),
        from_(rows_most_),
        source_(rows_most_),
        keys_(rows_most_),
        lists_(options_.shortlist == nullptr ? 0 : rows_most_),
        row_constraints_(rows_most_),
        constraint_pointers_(rows_most_, nullptr),
        report_(options_, sources_.B),
        choosers_(threads_),
        traces_(plan_.units) {
    rows_.reserve(rows_most_);
    before_.reserve(rows_most_);
    for (Chooser& chooser : choosers_) {
      chooser.candidates.resize(options_.slots);
      chooser.weights.resize(options_.slots);
      chooser.found.resize(options_.results);
    }
    for (RowConstraints& row : row_constraints_) row.reserve(constraints_.room(room_));
    if (options_.coverage_penalty != 0 && options_.mode == DecodeMode::kBeam) {
      wide_weights_.resize(rows_most_ * sources_.S);
    }
    kept_.S = options_.attentions ? sources_.S : 0;
    kept_.P = options_.states ? model_.P : 0;
    kept_.C = options_.states && model_.context == DecodeContext::kAttention ? model_.C : 0;
    kept_.score_bytes = options_.make_scores ? model_.num_tokens * size_of(state_) : 0;
  }

  Status run(const Runtime& runtime, DecodeResult* result) {
    run_team(runtime, threads_, [this](const Member& member) { loop(member); });
    if (failed_) return Status::invalid(error_);
    assemble(traces_, options_.results, kept_, options_.make_scores, result);
    if (result->undefined_source >= 0) {
      result->undefined_source = plan_.source(result->undefined_source);
    }
    return Status::ok();
  }

 private:
  // -- sizes and parts ---------------------------------------------------------------------------

  // What a strategy sees: a source for each unit.
  DecodeSources units() const {
    DecodeSources units = sources_;
    units.B = plan_.units;
    return units;
  }

  int64_t rows() {
    plan_.set_candidates(strategy_->wanted());
    return plan_.rows;
  }

  int threads(const std::vector<DecodeMember>& members, const Runtime& runtime) const {
    const int64_t useful = rows_most_ * Models::work(members, plan_.words) / kMinWorkPerThread;
    return static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
  }

  // Of log-probabilities: the widest of the models'.
  static DType state_of(const std::vector<DecodeMember>& members) {
    const bool wide = std::any_of(members.begin(), members.end(), [](const DecodeMember& member) {
      return member.model->dtype == DType::kFloat64;
    });
    return wide ? DType::kFloat64 : DType::kFloat32;
  }

  // -- the loop ----------------------------------------------------------------------------------

  // Barriers are a good part of a short step, so there are no more than rows and their shares want.
  void loop(const Member& member) {
    // A single row is the first member's all the way from its candidates to the next step's layers:
    // the others have nothing to wait for, and must not look at `rows_` before that is done.
    const bool alone = rows_most_ == 1, has_rows = !alone || member.index == 0;
    for (;;) {
      if (member.index == 0) {
        guarded([&] { begin_step(); });
        if (failed_) rows_.clear();  // half begun: nobody works on that
      }
      if (!alone) member.barrier->wait();
      if (has_rows && !rows_.empty()) {
        guarded([&] { gather(member); });
        models_.prepare(member);
      }
      member.barrier->wait();
      if (rows_.empty()) return;
      models_.run_layers(member);
      guarded([&] { models_.run_vocab(member); });
      if (options_.slots > 1) member.barrier->wait();  // else a source is its one row's member's
      if (has_rows) guarded([&] { choose(member); });
      if (!alone) member.barrier->wait();
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
    if (!goes_on()) throw std::runtime_error("decode: stopped by go_on");
    models_.begin_step();
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
    while (waiting_ < plan_.units && taken + options_.slots <= rows_most_) {
      if (!enter(waiting_++, places)) continue;  // done before its first step: takes no room
      ++places;
      taken += options_.slots;
    }
    point_parts();
  }

  void add_row(int64_t unit, int64_t slot, int64_t place) {
    from_[rows_.size()] = place;
    source_[rows_.size()] = plan_.source(unit);
    if (!lists_.empty()) lists_[rows_.size()] = plan_.list(unit);
    rows_.push_back({unit, slot});
  }

  bool goes_on() {
    if (options_.go_on == nullptr) return true;
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < kAskEvery) return true;
    asked_ = now;
    return options_.go_on(options_.go_on_context);
  }

  // Returns whether the source has any row.
  bool enter(int64_t source, int64_t place) {
    Trace& trace = traces_[source];
    trace.begin(options_.slots, room_, constraints_.needs_history(), kept_.S + kept_.P + kept_.C,
                kept_.score_bytes);
    strategy_->begin(source, trace.last());
    models_.enter(plan_.source(source), place);
    bool any = false;
    for (int64_t slot = 0; slot < options_.slots; ++slot) {
      if (!trace.last()[slot].live) continue;
      add_row(source, slot, place);
      any = true;
    }
    if (!any) finish(source, choosers_[0].found);
    return any;
  }

  void point_parts() {
    const bool constrained = constraints_.any() || task_ == VocabTask::kForced;
    models_.set_rows({static_cast<int64_t>(rows_.size()), from_.data(), source_.data(),
                      keys_.data(), lists_.empty() ? nullptr : lists_.data(),
                      constrained ? constraint_pointers_.data() : nullptr});
  }

  // What the layers read, and what each row may choose.
  void gather(const Member& member) {
    const int64_t count = static_cast<int64_t>(rows_.size());
    for (int64_t i = member.begin(count); i < member.end(count); ++i) {
      const Row& row = rows_[i];
      const Trace& trace = traces_[row.source];
      const int64_t step = trace.step();
      models_.gather(i, step == 0 ? options_.start_token : trace.last()[row.slot].token);
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
      out.forced =
          constraints_.word_of(row.source, options_.given[row.source * options_.given_size + step]);
      constraint_pointers_[i] = &out;
      rows_[i].given = out.forced < 0;
      if (rows_[i].given) out.forced = 0;
      return;
    }
    if (!constraints_.any()) return;
    constraints_.row(plan_.source(row.source), step, trace.history(row.slot), &out);
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

  // One a thread: what a source's slots found, and in the end the source.
  struct Chooser {
    std::vector<const Candidates*> candidates;
    std::vector<const double*> weights;
    std::vector<Hypothesis> found;
  };

  void choose_for(int64_t first, int64_t end, Chooser& chooser) {
    auto& [candidates, weights, found] = chooser;
    const int64_t source = rows_[first].source;
    Trace& trace = traces_[source];
    std::fill(candidates.begin(), candidates.end(), nullptr);
    std::fill(weights.begin(), weights.end(), nullptr);
    for (int64_t i = first; i < end; ++i) {
      const int64_t slot = rows_[i].slot;
      Candidates& row = models_.vocab().candidates[i];
      if (rows_[i].given && row.finite) row = outside();
      if (!row.finite) trace.note_undefined(slot);
      candidates[slot] = &row;
      keep_extras(i, trace.extras(slot));
      if (kept_.score_bytes > 0) keep_scores_of(i, trace.scores(slot));
      if (!wide_weights_.empty()) {
        models_.copy_weights(i, wide_weights_.data() + i * sources_.S);
        weights[slot] = wide_weights_.data() + i * sources_.S;
      }
    }
    Choice* const choices = trace.next();
    strategy_->advance(source, trace.step(), candidates.data(), weights.data(), choices);
    trace.advance();
    const bool live = std::any_of(choices, choices + options_.slots,
                                  [](const Choice& choice) { return choice.live; });
    if (report_.wanted()) report_.note(source, choices, candidates.data(), live);
    if (!live) finish(source, found);
  }

  // -- what is kept and told besides -------------------------------------------------------------

  // In the order in which `assemble` takes them.
  void keep_extras(int64_t row, double* to) const {
    if (kept_.S > 0) models_.copy_weights(row, to);
    if (kept_.P > 0) models_.copy_hidden(row, to + kept_.S);
    if (kept_.C > 0) models_.copy_context(row, to + kept_.S + kept_.P);
  }

  void keep_scores_of(int64_t i, void* to) {
    const WordList words = lists_.empty() ? WordList{model_.tokens, model_.V} : lists_[i];
    const VocabPart& vocab = models_.vocab();
    const char* all = static_cast<const char*>(vocab.log_probs);
    keep_scores(state_, all + i * vocab.log_probs_stride * size_of(state_), words,
                constraint_pointers_[i], model_.num_tokens, to);
  }

  // A given token that the shortlist leaves out.
  static Candidates outside() {
    static const int64_t token = 0;
    static const double impossible = -kInfinity;
    return {true, false, 1, &token, &impossible, &impossible, 0};
  }

  void finish(int64_t source, std::vector<Hypothesis>& found) {
    strategy_->finish(source, found.data());
    traces_[source].follow(found, options_.mode == DecodeMode::kBeam);
    traces_[source].release();
  }

  Plan plan_;
  const DecodeModel& model_;      // the first, if there are several
  const DecodeSources& sources_;  // its
  const DecodeOptions& options_;  // of a unit
  const DType state_;
  const VocabTask task_;
  const std::unique_ptr<Strategy> strategy_;
  const Constraints constraints_;
  const int64_t rows_most_;
  const int64_t room_;  // steps
  const int threads_;
  Models models_;

  std::vector<Row> rows_;               // in flight, a source's together and by ascending slot
  std::vector<Row> before_;             // those of the step before
  std::vector<int64_t> place_;          // (K): where a source's slot was among those
  std::vector<int64_t> from_, source_;  // (rows): see Stack::set_rows
  std::vector<DrawKey> keys_;
  std::vector<WordList> lists_;  // (rows), where units have lists of their own
  std::vector<RowConstraints> row_constraints_;
  std::vector<const RowConstraints*> constraint_pointers_;
  Report report_;
  std::vector<Chooser> choosers_;     // (threads)
  std::vector<double> wide_weights_;  // (rows, S), coverage penalty only
  std::vector<Trace> traces_;         // (units)
  Kept kept_;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
  int64_t waiting_ = 0;  // the first source that has not begun
  std::atomic<bool> failed_{false};
  std::string error_;
};

}  // namespace
}  // namespace decode

Status decode_sequences(const std::vector<DecodeMember>& members, const DecodeOptions& options,
                        const Runtime& runtime, DecodeResult* result) {
  std::string error;
  const KernelTable* kernels = kernel_table(&error);
  if (kernels == nullptr) return Status::invalid(error);
  for (const DecodeMember& member : members) {
    if (member.model->dtype == DType::kFloat16) {
      return Status::invalid("decode: expected float32, float64 or bfloat16");
    }
  }
  try {
    return decode::Engine(members, options, *kernels, runtime).run(runtime, result);
  } catch (const std::exception& e) {  // out of memory
    return Status::invalid(e.what());
  }
}

}  // namespace seq2seq_ext::kernels::cpu
