// SPDX-License-Identifier: MIT
// What a call asks of the engine: who is decoded by itself, which words there are, how many rows
// are in flight, and what is wanted of the vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "common/decode.h"
#include "cpu/decode/parts.h"

namespace seq2seq_ext::kernels::cpu::decode {

// A source is decoded in units: all of its beams, or each of its samples, by itself.
class Plan {
 public:
  // The words of an ensemble are those of its first member.
  Plan(const std::vector<DecodeMember>& members, const DecodeOptions& options);

  // Once the strategy has said how many candidates a row should have.
  void set_candidates(int64_t wanted);

  // The source that a unit decodes.
  int64_t source(int64_t unit) const { return unit / repeats; }

  // A unit's own words; none: all of the model's.
  WordList list(int64_t unit) const;

  VocabPartParams vocab(const DecodeModel& model) const;
  bool screened() const;    // whether the words are screened in int8
  bool normalized() const;  // whether only their sum is

  const DecodeModel& model;
  const DecodeSources& sources;
  const int64_t repeats;  // units of a source
  DecodeOptions options;  // of a unit: its slots, results, row ids
  const int64_t units;
  const int64_t words;  // of a row at most
  const VocabTask task;
  int64_t candidates = 1;
  int64_t rows = 1;  // in flight at most

 private:
  static int64_t most_words(const DecodeModel& model, const DecodeSources& sources,
                            const DecodeOptions& options);
  VocabTask find_task(bool alone) const;
  bool has_screen() const;

  const bool alone_;  // there is one model
  std::vector<int64_t> row_ids_;
};

}  // namespace seq2seq_ext::kernels::cpu::decode
