// SPDX-License-Identifier: MIT
// DecodeOptions from Python's keywords.
#pragma once

#include <string>
#include <type_traits>

#include "arrays.h"
#include "common/decode.h"

namespace seq2seq_ext::kernels_python {

using Ints = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
using Bytes = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;

// Options by the names of DecodeOptions, and the arrays that they point into.
struct NamedOptions {
  kernels::DecodeOptions values;
  Ints prefix, row_ids, given, given_lengths, shortlist, shortlist_starts;
  Bytes allowed;

  explicit NamedOptions(const py::dict& names) {
    for (const auto& [name, value] : names) set(py::cast<std::string>(name), value);
  }

 private:
  void set(const std::string& name, const py::handle& value) {
    if (set_number(name, value)) return;
    if (name == "mode") {
      values.mode = static_cast<kernels::DecodeMode>(py::cast<int>(value));
    } else if (name == "early_stopping") {
      values.early_stopping =
          static_cast<kernels::DecodeOptions::EarlyStopping>(py::cast<int>(value));
    } else if (name == "allowed") {
      allowed = py::cast<Bytes>(value);
      values.allowed = allowed.data();
      values.allowed_rows = allowed.shape(0);
    } else if (name == "prefix") {
      prefix = py::cast<Ints>(value);
      values.prefix = prefix.data();
      values.prefix_size = prefix.shape(1);
    } else if (name == "shortlist") {
      shortlist = py::cast<Ints>(value);
      values.shortlist = shortlist.data();
    } else if (name == "shortlist_starts") {
      shortlist_starts = py::cast<Ints>(value);
      values.shortlist_starts = shortlist_starts.data();
    } else if (name == "row_ids") {
      row_ids = py::cast<Ints>(value);
      values.row_ids = row_ids.data();
    } else if (name == "given") {
      given = py::cast<Ints>(value);
      values.given = given.data();
      values.given_size = given.shape(1);
    } else if (name == "given_lengths") {
      given_lengths = py::cast<Ints>(value);
      values.given_lengths = given_lengths.data();
    } else {
      throw py::type_error("unknown option " + name);
    }
  }

  bool set_number(const std::string& name, const py::handle& value) {
    const auto is = [&](const char* known, auto* field) {
      if (name != known) return false;
      *field = py::cast<std::decay_t<decltype(*field)>>(value);
      return true;
    };
    kernels::DecodeOptions& v = values;
    return is("slots", &v.slots) || is("results", &v.results) ||
           is("start_token", &v.start_token) || is("attentions", &v.attentions) ||
           is("max_new_tokens", &v.max_new_tokens) || is("min_new_tokens", &v.min_new_tokens) ||
           is("eos", &v.eos) || is("banned", &v.banned) || is("phrases", &v.phrases) ||
           is("no_repeat_ngram_size", &v.no_repeat_ngram_size) ||
           is("repetition_penalty", &v.repetition_penalty) || is("temperature", &v.temperature) ||
           is("top_p", &v.top_p) || is("min_p", &v.min_p) || is("top_k", &v.top_k) ||
           is("seed", &v.seed) || is("groups", &v.groups) ||
           is("length_penalty", &v.length_penalty) || is("coverage_penalty", &v.coverage_penalty) ||
           is("diversity_penalty", &v.diversity_penalty) || is("mean_of_logs", &v.mean_of_logs);
  }
};

}  // namespace seq2seq_ext::kernels_python
