// SPDX-License-Identifier: MIT
// Greedy decoding, sampling and given tokens: each row goes its own way (cpu/decode/picking.cpp).
#include "cuda/decode_launch.cuh"
#include "cuda/exact.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

// A row's next token is told; only its word's log-probability is wanted.
template <class A>
__device__ void take_given(const DecodeState& s, int64_t row, int64_t step) {
  const int64_t token = s.given[row * s.max_new_tokens + step];
  static_cast<A*>(s.trace_log_probs)[step * s.rows + row] = static_cast<const A*>(s.log_probs)[row];
  s.lengths[row] = step + 1;
  s.tokens[row] = max(min(token, s.num_tokens - 1), int64_t(0));
  s.alive[row] = step + 1 < min(s.given_lengths[row], s.max_new_tokens);
  if (s.alive[row]) atomicAdd(s.live, 1);
}

// A thread a row, whose one candidate is the choice.
template <class A>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_pick_kernel(const __grid_constant__ DecodeState s) {
  const int64_t step = *s.step, row = thread_of_grid();
  switch_bans(s, step);
  if (row >= s.rows || !s.alive[row]) return;
  const bool defined = note_defined<A>(s, row, step);
  if (s.given != nullptr) return take_given<A>(s, row, step);
  take<A>(s, row, step, defined ? 0 : -1);
}

// The sum of all lanes' values up to each lane's own.
__device__ double warp_scan(double x) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const double before = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += before;
  }
  return x;
}

// A warp's row, whose candidates it draws from.
template <class A>
struct RowDraw {
  const DecodeState& s;
  const DecodeDraw& d;
  const int64_t row, step;
  const A* const scores = static_cast<const A*>(s.scores_of_words) + row * s.C;
  const int64_t* const indices = s.indices + row * s.C;
  double* const weights = s.weights + row * s.C;
  const int lane = int(threadIdx.x) % 32;

  __device__ double score(int64_t i) const { return double(scores[i]) / d.temperature; }

  // Candidates that are allowed, which are the first: 0 .. C.
  __device__ int64_t count() const {
    return first_not(0, s.C, [&](int64_t i) { return indices[i] >= 0; });
  }

  // How many of the first `count` top_p leaves: one, and those before which less than top_p of all
  // has come.
  __device__ int64_t nucleus(int64_t count) const {
    const double best = score(0);
    double total = 0;
    for (int64_t first = 0; first < count; first += 32) {
      const int64_t i = first + lane;
      const double weight = i < count ? exact_exp(score(i) - best) : 0;
      total += __shfl_sync(kAllLanes, warp_scan(weight), 31);
      if (i < count) weights[i] = weight;  // the lane's own
    }
    double before = 0;
    for (int64_t first = 0; first < count; first += 32) {
      const int64_t i = first + lane;
      const double weight = i < count ? weights[i] : 0;
      const double with = before + warp_scan(weight);
      // Of lane l: what has come before candidate first + l + 1.
      const unsigned full = __ballot_sync(kAllLanes, i + 1 < count && with >= d.top_p * total);
      if (full != 0) return first + __ffs(int(full));
      before = __shfl_sync(kAllLanes, with, 31);
    }
    return count;
  }

  // How many of the first `count` are as probable as min_p wants: one at least.
  __device__ int64_t probable(int64_t count) const {
    const double best = score(0);
    return first_not(1, count, [&](int64_t i) { return score(i) - best >= d.lowest; });
  }

  __device__ int64_t draw(int64_t count) const {
    const DrawKey key{uint64_t(*s.seed), uint32_t(step), uint64_t(s.row_ids[row])};
    double most = minus_infinity<double>();
    int64_t best = -1, word = INT64_MAX;
    const auto better = [&](double value, int64_t other) {
      return value > most || (value == most && other < word);
    };
    for (int64_t i = lane; i < count; i += 32) {
      const double value = score(i) + exact_gumbel(key, token_of(s, indices[i]));
      if (better(value, indices[i])) most = value, best = i, word = indices[i];
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const double value = __shfl_xor_sync(kAllLanes, most, offset);
      const int64_t other = __shfl_xor_sync(kAllLanes, word, offset);
      const int64_t which = __shfl_xor_sync(kAllLanes, best, offset);
      if (better(value, other)) most = value, best = which, word = other;
    }
    return best;
  }
};

template <class A>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_draw_kernel(const __grid_constant__ DecodeState s,
                       const __grid_constant__ DecodeDraw d) {
  const int64_t step = *s.step, row = thread_of_grid() / 32;
  switch_bans(s, step);
  if (row >= s.rows || !s.alive[row]) return;
  const RowDraw<A> draw{s, d, row, step};
  const A first = draw.scores[0];
  const bool defined = first == first;
  int64_t count = defined ? draw.count() : 0;
  if (count > 0 && d.top_p < 1) count = draw.nucleus(count);
  if (count > 0) count = draw.probable(count);
  const int64_t best = draw.draw(count);
  __syncwarp();  // all lanes have seen `alive`
  if (draw.lane != 0) return;
  if (!defined) s.undefined[row] = step;
  take<A>(s, row, step, best);
}

}  // namespace

Status decode_pick(const DecodeState& s, const Runtime& runtime) {
  return dispatch_state(s.dtype, [&](auto tag) {
    return launch_decode("pick", decode_pick_kernel<decltype(tag)>, blocks_of(s.rows), runtime, s);
  });
}

Status decode_draw(const DecodeState& s, const DecodeDraw& d, const Runtime& runtime) {
  return dispatch_state(s.dtype, [&](auto tag) {
    return launch_decode("draw", decode_draw_kernel<decltype(tag)>, blocks_of(32 * s.rows), runtime,
                         s, d);
  });
}

}  // namespace seq2seq_ext::kernels::cuda
