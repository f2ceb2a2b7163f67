// SPDX-License-Identifier: MIT
// The rows of the result, followed back through what the steps chose (cpu/decode/trace.cpp).
#include "cuda/decode_launch.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kDecodeThreads)
    decode_summarize_kernel(const __grid_constant__ DecodeState s, int64_t results,
                            int64_t* lengths, double* ranks) {
  const int64_t i = thread_of_grid();
  if (i < s.rows && s.undefined[i] >= 0) {
    atomicMin(&s.summary->undefined, uint64_t(i) << 32 | uint64_t(s.undefined[i]));
  }
  if (i >= s.B * results) return;
  const int64_t row = i / results * s.K + i % results;
  if (ranks != nullptr) {
    const BeamHypothesis& found = s.finished[row];
    ranks[i] = found.rank;
    lengths[i] = found.rank > minus_infinity<double>() ? found.length : 0;
  } else {
    lengths[i] = s.lengths[row];
  }
  atomicMax(&s.summary->longest, uint64_t(lengths[i]));
}

template <class A>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_follow_kernel(const __grid_constant__ DecodeState s, int64_t results, int64_t T,
                         const int64_t* lengths, int64_t* tokens, A* log_probs) {
  const int64_t i = thread_of_grid();
  if (i >= s.B * results) return;
  const int64_t first = i / results * s.K, length = lengths[i];
  for (int64_t t = length; t < T; ++t) {
    tokens[i * T + t] = 0;
    log_probs[i * T + t] = 0;
  }
  int64_t slot = i % results, t = length - 1;
  if (s.finished != nullptr && length > 0) {
    // The last token may have taken the hypothesis out of the beams: the slot that it continues is
    // told, of the others the one that they are in.
    const BeamHypothesis& found = s.finished[first + slot];
    tokens[i * T + t] = found.token;
    log_probs[i * T + t] = A(found.log_prob);
    slot = found.slot;
    --t;
  }
  for (; t >= 0; --t) {
    const int64_t at = t * s.rows + first + slot;
    tokens[i * T + t] = s.trace_tokens[at];
    log_probs[i * T + t] = static_cast<const A*>(s.trace_log_probs)[at];
    if (s.trace_parents != nullptr) slot = s.trace_parents[at];
  }
}

}  // namespace

Status decode_summarize(const DecodeState& s, int64_t results, int64_t* lengths, double* ranks,
                        const Runtime& runtime) {
  return launch_decode("summarize", decode_summarize_kernel, blocks_of(s.rows), runtime, s, results,
                       lengths, ranks);
}

Status decode_follow(const DecodeState& s, int64_t results, int64_t T, const int64_t* lengths,
                     int64_t* tokens, void* log_probs, const Runtime& runtime) {
  return dispatch_state(s.dtype, [&](auto tag) {
    using A = decltype(tag);
    return launch_decode("follow", decode_follow_kernel<A>, blocks_of(s.B * results), runtime, s,
                         results, T, lengths, tokens, static_cast<A*>(log_probs));
  });
}

}  // namespace seq2seq_ext::kernels::cuda
