// SPDX-License-Identifier: MIT
// What a row may not choose because of what it holds already, or must choose
// (cpu/decode/constraints.cpp), and what each step leaves behind for the caller.
#include <algorithm>

#include "cuda/decode_launch.cuh"
#include "cuda/exact.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

__device__ inline void set_bit(uint32_t* bits, int64_t i) {
  atomicOr(bits + i / 32, uint32_t{1} << (i % 32));
}

// A block's row.
struct RowHistory {
  const DecodeConstraints& c;
  const DecodeState& s = c.state;
  const int64_t row, step;
  int* const now = c.now == nullptr ? nullptr : c.now + row * s.max_new_tokens;

  // With the word that the step before chose.
  __device__ void extend() const {
    if (now == nullptr || step == 0) return;
    if (c.before != c.now) {
      const int* const before = c.before + s.from[row] * s.max_new_tokens;
      for (int64_t t = threadIdx.x; t < step - 1; t += kDecodeThreads) now[t] = before[t];
    }
    if (threadIdx.x == 0) now[step - 1] = s.trace_words[(step - 1) * s.rows + row];
  }

  // Whether something is forced upon the row, and which word; -1: none that there is.
  __device__ bool forced(int64_t* word) const {
    if (c.forced == nullptr || step >= c.forced_size) return false;
    const int64_t token = c.forced[row / s.K * c.forced_size + step];
    *word = word_of(s, token);
    return token >= 0 || s.given != nullptr;
  }

  // All words but a forced one, else those of all rows alike.
  __device__ void begin_bits(bool is_forced, int64_t word) const {
    const int64_t ban_row = s.ban_rows > 1 ? row / s.K : 0;
    for (int64_t i = threadIdx.x; i < s.words; i += kDecodeThreads) {
      uint32_t bits = s.banned == nullptr ? 0 : s.banned[ban_row * s.words + i];
      if (is_forced) bits = ~(word >= 0 && word / 32 == i ? uint32_t{1} << (word % 32) : 0);
      c.banned[row * s.words + i] = bits;
      if (c.seen != nullptr) c.seen[row * s.words + i] = 0;
    }
  }

  __device__ bool same(const int* a, const int* b, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) {
      if (a[i] != b[i]) return false;
    }
    return true;
  }

  __device__ void ban_phrases() const {
    for (int64_t i = threadIdx.x; i < c.num_phrases; i += kDecodeThreads) {
      const int first = i == 0 ? 0 : c.phrase_ends[i - 1], before = c.phrase_ends[i] - 1 - first;
      const int last = c.phrases[first + before];
      if (last < 0 || before > step) continue;
      if (same(c.phrases + first, now + step - before, before)) {
        set_bit(c.banned + row * s.words, last);
      }
    }
  }

  __device__ void ban_ngrams() const {
    const int64_t before = c.ngram - 1;
    if (c.ngram == 0 || c.ngram > step) return;
    for (int64_t t = before + threadIdx.x; t < step; t += kDecodeThreads) {
      if (same(now + t - before, now + step - before, before)) {
        set_bit(c.banned + row * s.words, now[t]);
      }
    }
  }

  __device__ void mark_seen() const {
    for (int64_t t = threadIdx.x; t < step; t += kDecodeThreads) {
      set_bit(c.seen + row * s.words, now[t]);
    }
  }
};

// A block a row.
__global__ void __launch_bounds__(kDecodeThreads)
    decode_constrain_kernel(const __grid_constant__ DecodeConstraints c) {
  const int64_t row = blockIdx.x;
  if (!is_live(c.state, row)) return;
  const RowHistory history{c, c.state, row, *c.state.step};
  int64_t word = -1;
  const bool forced = history.forced(&word);
  history.extend();
  history.begin_bits(forced, word);
  __syncthreads();
  if (c.seen != nullptr) history.mark_seen();
  if (forced || history.now == nullptr) return;
  history.ban_phrases();
  history.ban_ngrams();
}

constexpr int kSomeNumbers = 256;
template <class N>
struct SomeNumbers {
  N numbers[kSomeNumbers];
};

__global__ void __launch_bounds__(kDecodeThreads)
    decode_store_words_kernel(const __grid_constant__ DecodeState s, int* to, int count, bool words,
                              const __grid_constant__ SomeNumbers<int64_t> some) {
  const int64_t i = thread_of_grid();
  if (i < count) to[i] = int(words ? word_of(s, some.numbers[i]) : some.numbers[i]);
}

__global__ void __launch_bounds__(kDecodeThreads)
    decode_store_kernel(double* to, int count, const __grid_constant__ SomeNumbers<double> some) {
  const int64_t i = thread_of_grid();
  if (i < count) to[i] = some.numbers[i];
}

// store(first, count, numbers) for some of the numbers after the other.
template <class N, class Store>
Status store_some(const N* from, int64_t count, const Store& store) {
  for (int64_t first = 0; first < count; first += kSomeNumbers) {
    SomeNumbers<N> some{};
    const int n = static_cast<int>(std::min<int64_t>(count - first, kSomeNumbers));
    std::copy_n(from + first, n, some.numbers);
    if (const Status status = store(first, n, some); !status) return status;
  }
  return Status::ok();
}

// A block a row.
template <class T>
__global__ void __launch_bounds__(kDecodeThreads)
    decode_cover_kernel(const __grid_constant__ DecodeCoverage c) {
  GPU_SHARED(double, logs, [kDecodeThreads]);
  const DecodeState& s = c.state;
  const int64_t row = blockIdx.x, step = *s.step;
  if (!is_live(s, row)) return;
  const double* const before = c.before + s.from[row] * c.S;
  double* const now = c.now + row * c.S;
  const T* const weights = static_cast<const T*>(c.weights) + row * c.S;
  const int64_t given = c.lengths == nullptr ? c.S : c.lengths[row / s.K];
  const int64_t length = max(min(given, c.S), int64_t(0));
  constexpr double kLeastShare = 0x1p-126;
  double sum = 0;  // of thread 0, in the order of the positions
  for (int64_t first = 0; first < c.S; first += kDecodeThreads) {
    const int64_t i = first + threadIdx.x;
    double share = 1;
    if (i < c.S) {
      now[i] = (step == 0 ? 0 : before[i]) + double(to_acc(weights[i]));
      if (i < length) share = min(max(now[i], kLeastShare), 1.0);
    }
    logs[threadIdx.x] = share < 1 ? exact_log(share) : 0;
    __syncthreads();
    for (int j = 0; threadIdx.x == 0 && j < kDecodeThreads; ++j) sum += logs[j];
    __syncthreads();
  }
  if (threadIdx.x == 0) s.coverage[row] = __dmul_rn(c.penalty, sum);
}

// A block a row.
__global__ void __launch_bounds__(kDecodeThreads)
    decode_keep_kernel(const __grid_constant__ DecodeState s,
                       const __grid_constant__ DecodeKept kept) {
  const int64_t row = blockIdx.x, width = kept.width / 2;
  if (!is_live(s, row)) return;
  const auto* const from = static_cast<const uint16_t*>(kept.rows) + row * width;
  auto* const to = static_cast<uint16_t*>(kept.trace) + (*s.step * s.rows + row) * width;
  for (int64_t i = threadIdx.x; i < width; i += kDecodeThreads) to[i] = from[i];
}

}  // namespace

Status decode_constrain(const DecodeConstraints& c, const Runtime& runtime) {
  return launch_decode("constrain", decode_constrain_kernel, c.state.rows, runtime, c);
}

Status decode_store(const DecodeState& s, int* to, const int64_t* from, int64_t count, bool words,
                    const Runtime& runtime) {
  return store_some(from, count, [&](int64_t first, int n, const SomeNumbers<int64_t>& some) {
    return launch_decode("store words", decode_store_words_kernel, blocks_of(n), runtime, s,
                         to + first, n, words, some);
  });
}

Status decode_store(double* to, const double* from, int64_t count, const Runtime& runtime) {
  return store_some(from, count, [&](int64_t first, int n, const SomeNumbers<double>& some) {
    return launch_decode("store", decode_store_kernel, blocks_of(n), runtime, to + first, n, some);
  });
}

Status decode_cover(const DecodeCoverage& c, const Runtime& runtime) {
  return dispatch_dtype(c.dtype, [&](auto tag) {
    return launch_decode("cover", decode_cover_kernel<decltype(tag)>, c.state.rows, runtime, c);
  });
}

Status decode_keep(const DecodeState& s, const DecodeKept& kept, const Runtime& runtime) {
  return launch_decode("keep", decode_keep_kernel, s.rows, runtime, s, kept);
}

}  // namespace seq2seq_ext::kernels::cuda
