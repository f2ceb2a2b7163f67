// SPDX-License-Identifier: MIT
// A step of beam search (cpu/decode/beam.cpp): a launch a group of beams, a block a source. Each
// thread finds the rank of some candidates among all of the group's; one then goes through the best
// of them.
#include <algorithm>

#include "cuda/decode_launch.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

template <class A>
struct GroupBeams {
  using Hypothesis = BeamHypothesis;

  const DecodeState& s;
  const DecodeBeam& p;
  const int64_t source, step;
  const int64_t group = p.group;
  const int64_t K = s.width, C = s.C;
  const int64_t own = group * K, first = source * s.K + own;  // slot and row of the group's first
  const int64_t* const indices = s.indices + first * C;
  const A* const log_probs = static_cast<const A*>(s.log_probs) + first * C;
  const A* const scores_of_words = static_cast<const A*>(s.scores_of_words) + first * C;
  double* const keys = s.keys + first * C;
  BeamExtension* const extended = s.extended + source * s.most;
  double* const scores = s.scores + first;
  Hypothesis* const running = s.running + first;
  Hypothesis* const finished = s.finished + first;

  __device__ static constexpr double none() { return minus_infinity<double>(); }
  __device__ double total(int64_t i) const { return scores[i / C] + double(scores_of_words[i]); }

  // How many beams of the groups before have just chosen a word.
  __device__ int64_t chosen(int64_t word) const {
    int64_t count = 0;
    for (int64_t i = -own; i < 0; ++i) count += running[i].rank > none() && running[i].word == word;
    return count;
  }

  // What the step's choice goes by, of all candidates; -inf of what is none.
  __device__ void find_keys() const {
    for (int64_t i = threadIdx.x; i < K * C; i += kDecodeThreads) {
      const A log_prob = log_probs[i];
      const bool valid = scores[i / C] > none() && indices[i] >= 0 && log_prob == log_prob;
      keys[i] = !valid ? none()
                : group == 0
                    ? total(i)
                    : total(i) - __dmul_rn(p.diversity_penalty, double(chosen(indices[i])));
    }
  }

  // How many of a slot's candidates come before one with the key: of equals the first `equals`.
  __device__ int64_t before(int64_t slot, double key, int64_t equals) const {
    const double* const its = keys + slot * C;
    const auto comes = [&](int64_t i) { return its[i] > key || (its[i] == key && i < equals); };
    if (group == 0) return first_not(0, C, comes);  // they descend
    int64_t count = 0;
    for (int64_t i = 0; i < C; ++i) count += comes(i);
    return count;
  }

  // Those of the best `most` candidates to their places.
  __device__ void sort_best() const {
    for (int64_t i = threadIdx.x; i < K * C; i += kDecodeThreads) {
      const double key = keys[i];
      if (!(key > none())) continue;
      const int64_t slot = i / C;
      int64_t rank = 0;
      for (int64_t other = 0; other < K && rank < s.most; ++other) {
        rank += before(other, key, other < slot ? C : other == slot ? i % C : 0);
      }
      if (rank < s.most) extended[rank] = {total(i), int(slot), int(i % C)};
    }
  }

  __device__ int64_t count() const {
    int64_t sum = 0;
    for (int64_t slot = 0; slot < K && sum < s.most; ++slot) {
      sum += first_not(0, C, [&](int64_t i) { return keys[slot * C + i] > none(); });
    }
    return min(sum, s.most);
  }

  // Into the best K, behind its equals; what has no rank counts nowhere.
  __device__ void insert(const Hypothesis& hypothesis) const {
    int64_t place = K;
    while (place > 0 && finished[place - 1].rank < hypothesis.rank) --place;
    for (int64_t i = K - 1; i > place; --i) finished[i] = finished[i - 1];
    if (place < K) finished[place] = hypothesis;
  }

  __device__ bool is_done(int64_t going, double length_norm, double longest_norm) const {
    const double worst = finished[K - 1].rank;
    bool full = worst > none();  // K hypotheses
    for (int64_t i = 0; i < going; ++i) {
      if (p.early_stopping == DecodeOptions::EarlyStopping::kNo) {
        full = full && worst >= running[i].rank;
      } else if (p.early_stopping == DecodeOptions::EarlyStopping::kNever) {
        // Scores only fall.
        full = full && worst >= scores[i] / length_norm && worst >= scores[i] / longest_norm;
      }
    }
    return full || going == 0;
  }

  // What ends counts if it is among the first K; what goes on are the first K of the others.
  __device__ int64_t extend(int64_t count, double length_norm) const {
    int64_t going = 0;
    for (int64_t ranked = 0; ranked < count; ++ranked) {
      const BeamExtension e = extended[ranked];
      const int64_t at = e.slot * C + e.place, word = indices[at];
      const double covered = s.coverage == nullptr ? 0 : s.coverage[first + e.slot];
      const Hypothesis hypothesis{e.total / length_norm + covered, double(log_probs[at]), step + 1,
                                  int(own) + e.slot, int(word)};
      if (is_set(s.ends, word)) {
        if (ranked < K) insert(hypothesis);
      } else if (going < K) {
        running[going] = hypothesis;
        scores[going] = e.total;
        ++going;
      }
    }
    for (int64_t i = going; i < K; ++i) {
      running[i] = {none(), 0, 0, 0, 0};
      scores[i] = none();
    }
    return going;
  }

  __device__ void note_undefined() const {
    int64_t& noted = s.undefined[source * s.K];
    for (int64_t slot = 0; slot < K && noted < 0; ++slot) {
      const A log_prob = log_probs[slot * C];
      if (scores[slot] > none() && log_prob != log_prob) noted = step;
    }
  }

  // A group that was done before chooses nothing.
  __device__ void pause() const {
    for (int64_t i = threadIdx.x; i < K; i += kDecodeThreads) running[i].rank = none();
  }

  // Returns whether it is done.
  __device__ bool advance() const {
    note_undefined();
    const double length_norm = p.norms[step + 1], longest_norm = p.norms[s.max_new_tokens];
    const int64_t candidates = count();
    // Where nothing at all can follow, hypotheses end as they are.
    for (int64_t i = 0; candidates == 0 && i < K; ++i) insert(running[i]);
    const int64_t going = extend(candidates, length_norm);
    const bool last = step + 1 == s.max_new_tokens;
    for (int64_t i = 0; last && i < going; ++i) insert(running[i]);
    const bool done = last || is_done(going, length_norm, longest_norm);
    for (int64_t i = 0; i < going; ++i) {
      const int64_t row = first + i, to = step * s.rows + row;
      s.trace_words[to] = running[i].word;
      s.trace_parents[to] = running[i].slot;
      static_cast<A*>(s.trace_log_probs)[to] = A(running[i].log_prob);
      s.tokens[row] = token_of(s, running[i].word);
      s.from[row] = source * s.K + running[i].slot;
      if (done) scores[i] = none();
    }
    if (!done) atomicAdd(s.live, int(going));
    return done;
  }
};

// Those of all groups by descending rank, of equals the lower slot's first.
__device__ void sort_finished(BeamHypothesis* finished, int64_t count) {
  for (int64_t i = 1; i < count; ++i) {
    const BeamHypothesis next = finished[i];
    int64_t place = i;
    for (; place > 0 && finished[place - 1].rank < next.rank; --place) {
      finished[place] = finished[place - 1];
    }
    finished[place] = next;
  }
}

// Once the last of its groups has had its turn.
__device__ void finish_source(const DecodeState& s, int64_t source) {
  bool done = true;
  for (int64_t group = 0; group < s.groups; ++group) {
    done = done && s.group_done[source * s.groups + group];
  }
  s.done[source] = done;
  if (done && s.groups > 1) sort_finished(s.finished + source * s.K, s.K);
}

template <class A>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_beam_kernel(const __grid_constant__ DecodeState s,
                       const __grid_constant__ DecodeBeam p) {
  const int64_t step = *s.step, source = blockIdx.x;
  const bool last = p.group + 1 == s.groups;
  if (last) switch_bans(s, step);
  if (s.done[source]) return;
  const GroupBeams<A> beams{s, p, source, step};
  bool& done = s.group_done[source * s.groups + p.group];
  if (done) {
    beams.pause();
  } else {
    beams.find_keys();
    __syncthreads();
    beams.sort_best();
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  if (!done) done = beams.advance();
  if (last) finish_source(s, source);
}

}  // namespace

Status decode_beam(const DecodeState& s, DecodeBeam p, const Runtime& runtime) {
  return dispatch_state(s.dtype, [&](auto tag) {
    Status status = Status::ok();
    for (p.group = 0; status && p.group < s.groups; ++p.group) {
      status = launch_decode("beam", decode_beam_kernel<decltype(tag)>, s.B, runtime, s, p);
    }
    return status;
  });
}

}  // namespace seq2seq_ext::kernels::cuda
