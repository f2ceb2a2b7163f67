// SPDX-License-Identifier: MIT
// NumPy bindings of what decoding has beside the model: constraints, strategies, exact functions.
#include "cpu/decode/strategy.h"

#include "cpu/decode/constraints.h"
#include "cpu/decode/exact.h"
#include "decode_options.h"
#include "launch.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

namespace decode = kernels::cpu::decode;
using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Flags = py::array_t<bool, py::array::c_style | py::array::forcecast>;

// Constraints(batch, num_words, tokens, **options)
class PyConstraints {
 public:
  PyConstraints(int64_t batch, int64_t num_words, const std::optional<Ints>& tokens,
                const py::kwargs& options)
      : options_(options),
        tokens_(tokens),
        num_words_(num_words),
        constraints_(options_.values, batch, num_words, tokens_ ? tokens_->data() : nullptr) {}

  bool needs_history() const { return constraints_.needs_history(); }
  bool any() const { return constraints_.any(); }

  // banned (num_words) bool, also_banned, seen, forced: one RowConstraints serves all calls.
  py::tuple row(int64_t source, int64_t step, const Ints& history) {
    constraints_.row(source, step, needs_history() ? history.data() : nullptr, &row_);
    Flags banned(num_words_);
    for (int64_t v = 0; v < num_words_; ++v) {
      banned.mutable_data()[v] =
          row_.banned != nullptr && ((row_.banned[v / 32] >> (v % 32)) & 1) != 0;
    }
    return py::make_tuple(banned, row_.also_banned, row_.seen, row_.forced);
  }

 private:
  const NamedOptions options_;
  const std::optional<Ints> tokens_;
  const int64_t num_words_;
  const decode::Constraints constraints_;
  decode::RowConstraints row_;
};

// Strategy(num_words, lengths, positions, **options)
class PyStrategy {
 public:
  PyStrategy(int64_t num_words, const Ints& lengths, int64_t positions, const py::kwargs& options)
      : options_(options), lengths_(lengths), positions_(positions) {
    kernels::DecodeSources sources{};
    sources.B = lengths_.size();
    sources.S = positions;
    sources.lengths = lengths_.data();
    strategy_ = decode::make_strategy(options_.values, sources, num_words);
  }

  int64_t wanted() const { return strategy_->wanted(); }

  py::tuple begin(int64_t source) {
    std::vector<decode::Choice> choices(options_.values.slots);
    strategy_->begin(source, choices.data());
    return pack(choices);
  }

  // rows: of each slot None or a dict of Candidates; weights: (slots, S) or None.
  py::tuple advance(int64_t source, int64_t step, const py::list& rows,
                    const std::optional<Doubles>& weights) {
    const size_t K = options_.values.slots;
    if (rows.size() != K) throw py::value_error("rows: expected one of each slot");
    std::vector<Row> held(K);
    std::vector<const decode::Candidates*> candidates(K, nullptr);
    std::vector<const double*> shares(K, nullptr);
    for (size_t k = 0; k < K; ++k) {
      if (rows[k].is_none()) continue;
      held[k] = Row(py::cast<py::dict>(rows[k]));
      candidates[k] = &held[k].candidates;
      if (weights) shares[k] = weights->data() + k * positions_;
    }
    std::vector<decode::Choice> choices(K);
    strategy_->advance(source, step, candidates.data(), weights ? shares.data() : nullptr,
                       choices.data());
    return pack(choices);
  }

  // (length, slot, token, log_prob, rank) of each
  py::list finish(int64_t source) {
    std::vector<decode::Hypothesis> found(options_.values.results);
    strategy_->finish(source, found.data());
    py::list out;
    for (const auto& h : found) {
      out.append(py::make_tuple(h.length, h.slot, h.token, h.log_prob, h.rank));
    }
    return out;
  }

 private:
  struct Row {
    decode::Candidates candidates;
    Ints tokens;
    Doubles scores, log_probs;

    Row() = default;
    explicit Row(const py::dict& d)
        : tokens(py::cast<Ints>(d["tokens"])),
          scores(py::cast<Doubles>(d["scores"])),
          log_probs(py::cast<Doubles>(d["log_probs"])) {
      if (d.contains("finite")) candidates.finite = py::cast<bool>(d["finite"]);
      if (d.contains("drawn")) candidates.drawn = py::cast<bool>(d["drawn"]);
      if (d.contains("rest")) candidates.rest = py::cast<double>(d["rest"]);
      candidates.count = tokens.size();
      candidates.tokens = tokens.data();
      candidates.scores = scores.data();
      candidates.log_probs = log_probs.data();
    }
  };

  // tokens, parents, log_probs, live: (slots) each
  static py::tuple pack(const std::vector<decode::Choice>& choices) {
    std::vector<int64_t> tokens, parents;
    std::vector<double> log_probs;
    std::vector<bool> live;
    for (const auto& c : choices) {
      tokens.push_back(c.token);
      parents.push_back(c.parent);
      log_probs.push_back(c.log_prob);
      live.push_back(c.live);
    }
    return py::make_tuple(tokens, parents, log_probs, live);
  }

  const NamedOptions options_;
  const Ints lengths_;
  const int64_t positions_;
  std::unique_ptr<decode::Strategy> strategy_;
};

template <class Function>
Doubles each(const Doubles& x, const Function& function) {
  Doubles y(x.size());
  for (py::ssize_t i = 0; i < x.size(); ++i) y.mutable_data()[i] = function(x.data()[i]);
  return y;
}

Doubles gumbel(uint64_t seed, uint64_t row, int64_t step, const Ints& tokens) {
  Doubles y(tokens.size());
  for (py::ssize_t i = 0; i < tokens.size(); ++i) {
    y.mutable_data()[i] = decode::exact_gumbel(seed, row, step, tokens.data()[i]);
  }
  return y;
}

}  // namespace

void bind_strategy(py::module_& m) {
  using namespace py::literals;
  m.def("exact_exp", [](const Doubles& x) { return each(x, decode::exact_exp); }, "x"_a);
  m.def("exact_log", [](const Doubles& x) { return each(x, decode::exact_log); }, "x"_a);
  m.def("exact_gumbel", &gumbel, "seed"_a, "row"_a, "step"_a, "tokens"_a);
  py::class_<PyConstraints>(m, "Constraints")
      .def(py::init<int64_t, int64_t, std::optional<Ints>, py::kwargs>())
      .def_property_readonly("needs_history", &PyConstraints::needs_history)
      .def_property_readonly("any", &PyConstraints::any)
      .def("row", &PyConstraints::row, "source"_a, "step"_a, "history"_a,
           "-> banned (num_words) bool, also_banned, seen, forced");
  py::class_<PyStrategy>(m, "Strategy")
      .def(py::init<int64_t, Ints, int64_t, py::kwargs>())
      .def_property_readonly("wanted", &PyStrategy::wanted)
      .def("begin", &PyStrategy::begin, "source"_a, "-> tokens, parents, log_probs, live: (slots)")
      .def("advance", &PyStrategy::advance, "source"_a, "step"_a, "rows"_a,
           "weights"_a = py::none(), "-> tokens, parents, log_probs, live: (slots)")
      .def("finish", &PyStrategy::finish, "source"_a, "-> [(length, slot, token, log_prob, rank)]");
}

}  // namespace seq2seq_ext::kernels_python
