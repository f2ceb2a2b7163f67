// SPDX-License-Identifier: MIT
// All words of a row in order, for a K too large for lists: a stable radix sort by a block, four
// bits a pass. Being stable, it leaves equal logits in the order of their indices.
#pragma once

#include "cuda/softmax.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr int kSortThreads = 256, kSortWarps = kSortThreads / 32;
constexpr int kSortBits = 4, kSortBins = 1 << kSortBits;

template <class To, class From>
__device__ inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// Unsigned integers whose ascending order is the descending one of the values; -0 is 0.
template <class A>
using SortKey = std::conditional_t<sizeof(A) == 4, uint32_t, uint64_t>;
template <class A>
__device__ inline SortKey<A> flip(SortKey<A> bits) {
  constexpr SortKey<A> kSign = SortKey<A>(1) << (8 * sizeof(A) - 1);
  return bits & kSign ? bits : bits ^ (kSign - 1);
}
template <class A>
__device__ inline SortKey<A> key_of_value(A value) {
  return flip<A>(same_bits<SortKey<A>>(value + A(0)));
}
template <class A>
__device__ inline A value_of_key(SortKey<A> key) {
  return same_bits<A>(flip<A>(key));
}

template <class A>
struct SortBuffers {
  using Key = SortKey<A>;
  Key* keys;
  int* indices;

  // Two of them for V words, in one piece of memory.
  __host__ __device__ static int64_t bytes(int64_t V) {
    return 2 * (V + V % 2) * int64_t(sizeof(Key) + sizeof(int));
  }
  __device__ SortBuffers(void* memory, int64_t V, int which) {
    const int64_t room = V + V % 2;  // keeps keys aligned
    keys = static_cast<Key*>(memory) + which * room;
    indices = reinterpret_cast<int*>(static_cast<Key*>(memory) + 2 * room) + which * room;
  }
};

// One pass: counts, then moves chunk by chunk. `get(i)`: the i-th key and index of the input.
template <class A, class Get>
__device__ void sort_pass(const Get& get, int64_t V, int shift, const SortBuffers<A>& to) {
  using Key = typename SortBuffers<A>::Key;
  GPU_SHARED(int, next, [kSortBins]);  // where the next word of each digit goes
  GPU_SHARED(int, counts, [kSortWarps * kSortBins]);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const auto digit = [&](Key key) { return int(key >> shift & (kSortBins - 1)); };
  if (threadIdx.x < kSortBins) next[threadIdx.x] = 0;
  if (threadIdx.x < kSortWarps * kSortBins) counts[threadIdx.x] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < V; i += kSortThreads) atomicAdd(&next[digit(get(i).key)], 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int bin = 0, sum = 0; bin < kSortBins; ++bin) {
      const int count = next[bin];
      next[bin] = sum;
      sum += count;
    }
  }
  for (int64_t first = 0; first < V; first += kSortThreads) {
    const int64_t i = first + threadIdx.x;
    const bool valid = i < V;
    const auto word = get(valid ? i : 0);
    const int bin = digit(word.key);
    unsigned same = __ballot_sync(kAllLanes, valid);  // lanes of this digit
    for (int bit = 0; bit < kSortBits; ++bit) {
      const unsigned set = __ballot_sync(kAllLanes, bin >> bit & 1);
      same &= bin >> bit & 1 ? set : ~set;
    }
    const int before = __popc(same & ((1u << lane) - 1));
    if (valid && before == 0) counts[warp * kSortBins + bin] = __popc(same);
    __syncthreads();
    if (valid) {
      int place = next[bin] + before;
      for (int w = 0; w < warp; ++w) place += counts[w * kSortBins + bin];
      to.keys[place] = word.key;
      to.indices[place] = word.index;
    }
    __syncthreads();
    if (threadIdx.x < kSortBins) {
      for (int w = 0; w < kSortWarps; ++w) {
        next[threadIdx.x] += counts[w * kSortBins + threadIdx.x];
        counts[w * kSortBins + threadIdx.x] = 0;
      }
    }
    __syncthreads();
  }
}

// Sorts row `row`; the result is in its part of `memory`, and visible to the block.
template <class A>
__device__ SortBuffers<A> sort_words(const A* logits, int64_t V, char* memory, int64_t row) {
  using Key = typename SortBuffers<A>::Key;
  struct Word {
    Key key;
    int index;
  };
  memory += row * SortBuffers<A>::bytes(V);
  const SortBuffers<A> buffers[2] = {{memory, V, 0}, {memory, V, 1}};
  sort_pass<A>([&](int64_t i) { return Word{key_of_value(logits[i]), int(i)}; }, V, 0, buffers[0]);
  constexpr int kPasses = 8 * int(sizeof(Key)) / kSortBits;
  for (int pass = 1; pass < kPasses; ++pass) {
    const SortBuffers<A>& from = buffers[(pass - 1) % 2];
    sort_pass<A>([&](int64_t i) { return Word{from.keys[i], from.indices[i]}; }, V,
                 pass * kSortBits, buffers[pass % 2]);
  }
  return buffers[(kPasses - 1) % 2];
}

}  // namespace seq2seq_ext::kernels::cuda
