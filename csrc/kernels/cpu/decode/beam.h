// SPDX-License-Identifier: MIT
// Beam search: the hypotheses of each source that go on, and those that are finished.
// Legend: G groups of k = K / G beams each, C candidates of a beam.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/decode/strategy.h"

namespace seq2seq_ext::kernels::cpu::decode {

class BeamSearch : public Strategy {
 public:
  BeamSearch(const DecodeOptions& options, const DecodeSources& sources, int64_t num_words);

  int64_t wanted() const override { return wanted_; }
  void begin(int64_t source, Choice* choices) override;
  void advance(int64_t source, int64_t step, const Candidates* const* rows,
               const double* const* weights, Choice* choices) override;
  void finish(int64_t source, Hypothesis* hypotheses) override;

 private:
  // A hypothesis with one token more.
  struct Extended {
    double key;    // what the step's choice goes by
    double total;  // of scores
    double log_prob;
    int64_t slot, token;  // the beam before, and its new token
    int64_t place;        // among the group's candidates, beam by beam: of equals the first wins
  };

  // The state of a source from begin to finish; nothing of it grows in between.
  struct Source {
    std::vector<double> scores;        // (K); -inf: no beam
    std::vector<Hypothesis> running;   // (K): what runs, as it would rank if it ended now
    std::vector<Hypothesis> finished;  // (G, k) by descending rank; -inf: none yet
    std::vector<uint8_t> group_done;   // (G)
    std::vector<double> penalties;     // (K): what each beam's coverage is worth
    std::vector<double> coverage, next_coverage;  // (K, S), with a coverage penalty
    std::vector<int64_t> chosen;                  // by the step's earlier groups
    std::vector<Extended> extended;               // at most (k * C), of one group
  };

  void cover(int64_t source, const Candidates* const* rows, const double* const* weights,
             Source* s) const;
  void move_coverage(Source* s) const;
  void extend(int64_t group, int64_t step, const Candidates* const* rows, Source* s,
              Choice* choices) const;
  // The group's best candidates to s->extended, sorted.
  void sort_best(int64_t group, const Candidates* const* rows, Source* s) const;
  bool is_done(int64_t group, int64_t length, const Source& s) const;
  bool ends(int64_t token) const;
  double norm(int64_t length) const;

  const DecodeOptions& options_;
  const int64_t width_;  // k
  const int64_t wanted_;
  const int64_t positions_;       // S
  const int64_t* const lengths_;  // (B) or null
  const double longest_norm_;
  std::vector<std::unique_ptr<Source>> sources_;  // (B)
};

}  // namespace seq2seq_ext::kernels::cpu::decode
