// SPDX-License-Identifier: MIT
// A step of beam search (cpu/decode/beam.cpp), of one group: a block a source. Each thread finds
// the rank of some candidates among all of the source's; one then goes through the best of them.
#include <algorithm>

#include "cuda/decode_launch.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

template <class A>
struct SourceBeams {
  using Hypothesis = BeamHypothesis;

  const DecodeState& s;
  const DecodeBeam& p;
  const int64_t source, step;
  const int64_t K = s.K, C = s.C, first = source * s.K;  // row of slot 0
  const int64_t* const indices = s.indices + first * C;
  const A* const log_probs = static_cast<const A*>(s.log_probs) + first * C;
  double* const totals = s.totals + first * C;
  BeamExtension* const extended = s.extended + source * s.most;
  double* const scores = s.scores + first;
  Hypothesis* const running = s.running + first;
  Hypothesis* const finished = s.finished + first;

  __device__ static constexpr double none() { return minus_infinity<double>(); }

  // Totals of all candidates, -inf of what is none.
  __device__ void add_up() const {
    for (int64_t i = threadIdx.x; i < K * C; i += kDecodeThreads) {
      const int64_t slot = i / C;
      const A log_prob = log_probs[i];
      const bool valid = scores[slot] > none() && indices[i] >= 0 && log_prob == log_prob;
      totals[i] = valid ? scores[slot] + double(log_prob) : none();
    }
  }

  // How many of a slot's candidates, which descend, come before one of another slot: equals of a
  // lower slot do.
  __device__ int64_t before(int64_t slot, double total, int64_t other) const {
    const double* const own = totals + slot * C;
    return first_not(
        0, C, [&](int64_t i) { return own[i] > total || (own[i] == total && slot < other); });
  }

  // Those of the best `most` candidates to their places.
  __device__ void sort_best() const {
    for (int64_t i = threadIdx.x; i < K * C; i += kDecodeThreads) {
      const double total = totals[i];
      if (!(total > none())) continue;
      const int64_t slot = i / C;
      int64_t rank = i % C;
      for (int64_t other = 0; other < K && rank < s.most; ++other) {
        if (other != slot) rank += before(other, total, slot);
      }
      if (rank < s.most) extended[rank] = {total, int(slot), int(i % C)};
    }
  }

  __device__ int64_t count() const {
    int64_t sum = 0;
    for (int64_t slot = 0; slot < K && sum < s.most; ++slot) {
      sum += first_not(0, C, [&](int64_t i) { return totals[slot * C + i] > none(); });
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

  __device__ double norm(int64_t length) const {
    if (p.length_penalty == 1) return double(length);
    return p.length_penalty == 0 ? 1 : pow(double(length), p.length_penalty);
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

  __device__ void note_undefined() const {
    for (int64_t slot = 0; slot < K && s.undefined[first] < 0; ++slot) {
      const A log_prob = log_probs[slot * C];
      if (scores[slot] > none() && log_prob != log_prob) s.undefined[first] = step;
    }
  }

  // What ends counts if it is among the first K; what goes on are the first K of the others.
  __device__ int64_t extend(int64_t count, double length_norm) const {
    int64_t going = 0;
    for (int64_t ranked = 0; ranked < count; ++ranked) {
      const BeamExtension e = extended[ranked];
      const int64_t at = e.slot * C + e.place, token = indices[at];
      const Hypothesis hypothesis{e.total / length_norm, double(log_probs[at]), step + 1, e.slot,
                                  int(token)};
      if (is_set(s.ends, token)) {
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

  __device__ void advance() const {
    const double length_norm = norm(step + 1), longest_norm = norm(s.max_new_tokens);
    note_undefined();
    const int64_t candidates = count();
    // Where nothing at all can follow, hypotheses end as they are.
    for (int64_t i = 0; candidates == 0 && i < K; ++i) insert(running[i]);
    const int64_t going = extend(candidates, length_norm);
    const bool last = step + 1 == s.max_new_tokens;
    for (int64_t i = 0; last && i < going; ++i) insert(running[i]);
    const bool done = last || is_done(going, length_norm, longest_norm);
    for (int64_t i = 0; i < going; ++i) {
      const int64_t row = first + i, to = step * s.rows + row;
      s.trace_tokens[to] = running[i].token;
      s.trace_parents[to] = running[i].slot;
      static_cast<A*>(s.trace_log_probs)[to] = A(running[i].log_prob);
      s.tokens[row] = running[i].token;
      s.from[row] = first + running[i].slot;
    }
    s.done[source] = done;
    if (!done) atomicAdd(s.live, int(going));
  }
};

template <class A>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_beam_kernel(const __grid_constant__ DecodeState s,
                       const __grid_constant__ DecodeBeam p) {
  const int64_t step = *s.step, source = blockIdx.x;
  switch_bans(s, step);
  if (s.done[source]) return;
  const SourceBeams<A> beams{s, p, source, step};
  beams.add_up();
  __syncthreads();
  beams.sort_best();
  __syncthreads();
  if (threadIdx.x == 0) beams.advance();
}

}  // namespace

Status decode_beam(const DecodeState& s, const DecodeBeam& p, const Runtime& runtime) {
  return dispatch_state(s.dtype, [&](auto tag) {
    return launch_decode("beam", decode_beam_kernel<decltype(tag)>, s.B, runtime, s, p);
  });
}

}  // namespace seq2seq_ext::kernels::cuda
