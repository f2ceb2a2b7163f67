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
                         const int64_t* lengths, int64_t* tokens, A* log_probs, int* made_by) {
  const int64_t i = thread_of_grid();
  if (i >= s.B * results) return;
  const int64_t first = i / results * s.K, length = lengths[i];
  const auto write = [&](int64_t t, int64_t token, A log_prob, int64_t by) {
    tokens[i * T + t] = token;
    log_probs[i * T + t] = log_prob;
    if (made_by != nullptr) made_by[i * T + t] = int(first + by);
  };
  for (int64_t t = length; t < T; ++t) write(t, 0, A(0), 0);
  int64_t slot = i % results, t = length - 1;
  if (s.finished != nullptr && length > 0) {
    // The last token may have taken the hypothesis out of the beams: the slot that it continues is
    // told, of the others the one that they are in.
    const BeamHypothesis& found = s.finished[first + slot];
    slot = found.slot;
    write(t, token_of(s, found.word), A(found.log_prob), slot);
    --t;
  }
  for (; t >= 0; --t) {
    const int64_t at = t * s.rows + first + slot;
    if (s.trace_parents != nullptr) slot = s.trace_parents[at];
    const int64_t token =
        s.given != nullptr ? s.given[i * s.max_new_tokens + t] : token_of(s, s.trace_words[at]);
    write(t, token, static_cast<const A*>(s.trace_log_probs)[at], slot);
  }
}

// A block a row and step.
__global__ void __launch_bounds__(kDecodeThreads)
    decode_collect_kernel(const __grid_constant__ DecodeState s,
                          const __grid_constant__ DecodeKept kept, int64_t T,
                          const int64_t* lengths, const int* made_by, uint16_t* to) {
  const int64_t at = blockIdx.x, step = at % T, width = kept.width / 2;
  const bool inside = step < lengths[at / T];
  const auto* const from =
      static_cast<const uint16_t*>(kept.trace) + (step * s.rows + made_by[at]) * width;
  for (int64_t i = threadIdx.x; i < width; i += kDecodeThreads) {
    to[at * width + i] = inside ? from[i] : uint16_t{0};
  }
}

}  // namespace

Status decode_summarize(const DecodeState& s, int64_t results, int64_t* lengths, double* ranks,
                        const Runtime& runtime) {
  return launch_decode("summarize", decode_summarize_kernel, blocks_of(s.rows), runtime, s, results,
                       lengths, ranks);
}

Status decode_follow(const DecodeState& s, int64_t results, int64_t T, const int64_t* lengths,
                     int64_t* tokens, void* log_probs, int* made_by, const Runtime& runtime) {
  return dispatch_state(s.dtype, [&](auto tag) {
    using A = decltype(tag);
    return launch_decode("follow", decode_follow_kernel<A>, blocks_of(s.B * results), runtime, s,
                         results, T, lengths, tokens, static_cast<A*>(log_probs), made_by);
  });
}

Status decode_collect(const DecodeState& s, const DecodeKept& kept, int64_t R, int64_t T,
                      const int64_t* lengths, const int* made_by, void* to,
                      const Runtime& runtime) {
  if (R * T == 0 || kept.width == 0) return Status::ok();
  return launch_decode("collect", decode_collect_kernel, R * T, runtime, s, kept, T, lengths,
                       made_by, static_cast<uint16_t*>(to));
}

}  // namespace seq2seq_ext::kernels::cuda
