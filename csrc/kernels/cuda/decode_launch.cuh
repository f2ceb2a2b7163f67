// SPDX-License-Identifier: MIT
// Included by decode_*.cu.
#pragma once

#include "cuda/decode_state.h"
#include "cuda/math.cuh"
#include "cuda/softmax.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr int kDecodeThreads = 128;

// As many blocks as hold one thread for each of `count`.
template <class... Params, class... Args>
Status launch_decode(const char* name, void (*kernel)(Params...), int64_t blocks,
                     const Runtime& runtime, const Args&... args) {
  if (blocks > INT32_MAX) return Status::invalid("decode: too many rows");
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(kDecodeThreads);
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = gpu::launch(config, name, kernel, args...);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure(std::string("decode: ") + name, error));
}

inline int64_t blocks_of(int64_t count, int64_t each = kDecodeThreads) {
  return (count + each - 1) / each;
}

__device__ inline int64_t thread_of_grid() {
  return int64_t(blockIdx.x) * kDecodeThreads + threadIdx.x;
}

__device__ inline bool is_set(const uint32_t* bits, int64_t token) {
  return bits[token / 32] >> (token % 32) & 1;
}

// The first of low .. high - 1 for which `holds` does not hold, given that it then holds for none
// behind it; high: it holds for all.
template <class Holds>
__device__ inline int64_t first_not(int64_t low, int64_t high, const Holds& holds) {
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (holds(middle)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The token of a word, and the word of a token; -1: it has none.
__device__ inline int64_t token_of(const DecodeState& s, int64_t word) {
  if (s.token_of_word == nullptr) return word;
  return max(min(s.token_of_word[word], s.num_tokens - 1), int64_t(0));
}
__device__ inline int64_t word_of(const DecodeState& s, int64_t token) {
  if (s.token_of_word == nullptr) return token >= 0 && token < s.V ? token : -1;
  const int64_t word = first_not(0, s.V, [&](int64_t i) { return s.token_of_word[i] < token; });
  return word < s.V && s.token_of_word[word] == token ? word : -1;
}

// Whether a row takes part in the step at work.
__device__ inline bool is_live(const DecodeState& s, int64_t row) {
  if (s.alive != nullptr) return s.alive[row];
  return s.scores[row] > minus_infinity<double>() && !s.done[row / s.K];
}

// When the last step with bans of its own has been: by a whole grid.
__device__ inline void switch_bans(const DecodeState& s, int64_t step) {
  if (s.late == nullptr || step + 1 != s.min_new_tokens) return;
  const int64_t stride = int64_t(gridDim.x) * kDecodeThreads;
  for (int64_t i = thread_of_grid(); i < s.ban_rows * s.words; i += stride) s.banned[i] = s.late[i];
}

// A thread's row takes a candidate: (-1): there is none, it ends with what it has.
template <class A>
__device__ void take(const DecodeState& s, int64_t row, int64_t step, int64_t candidate) {
  const int64_t at = row * s.C + candidate, to = step * s.rows + row;
  const int64_t word = candidate < 0 ? -1 : s.indices[at];
  bool goes_on = false;
  if (word >= 0) {
    s.trace_words[to] = int(word);
    static_cast<A*>(s.trace_log_probs)[to] = static_cast<const A*>(s.log_probs)[at];
    s.lengths[row] = step + 1;
    s.tokens[row] = token_of(s, word);
    goes_on = step + 1 < s.max_new_tokens && !is_set(s.ends, word);
  }
  s.alive[row] = goes_on;
  if (goes_on) atomicAdd(s.live, 1);
}

// Whether the row's logits are finite; takes note of it where they are not.
template <class A>
__device__ bool note_defined(const DecodeState& s, int64_t row, int64_t step) {
  const A first = static_cast<const A*>(s.log_probs)[row * s.C];
  if (first == first) return true;
  s.undefined[row] = step;
  return false;
}

template <class F>
Status dispatch_state(DType dtype, const F& f) {
  return dtype == DType::kFloat64 ? f(double{}) : f(float{});
}

}  // namespace seq2seq_ext::kernels::cuda
