// SPDX-License-Identifier: MIT
// Attention step: scores, masked softmax and context of one query a row.
//
// The source is cut into parts of kPart positions, whatever the batch or S. A block works off one
// part of one row: each warp makes the scores of four positions at a time, its lanes along A; the
// softmax relative to the part's own maximum; then the part's share of the context, threads along
// C. Where S needs one part only the block finishes the row, else a second kernel puts the parts
// together in order, to the same bits. Nothing past a row's length is read, be it what it may.
#pragma once

#include "common/params.h"
#include "cuda/product_tile.cuh"
#include "cuda/softmax.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr int kPart = 128;
constexpr int kAttentionThreads = 256, kAttentionWarps = kAttentionThreads / 32;
constexpr int kTogether = 4;  // positions a warp has in hand at once

// Work memory and layout of a call.
template <class A>
struct AttentionWork {
  bool keys_aligned, values_aligned, rest_aligned;  // may be read 16 bytes at a time
  int64_t parts;                                    // of S
  const A* query = nullptr;                         // (B, query_stride): projected; null: p.query
  int64_t query_stride = 0;
  // With more than one part:
  SoftmaxPart<A>* softmax = nullptr;  // (B, parts)
  A* exps = nullptr;                  // (B, parts, kPart): exp(score - part's maximum)
  A* contexts = nullptr;              // (B, parts, C), not yet divided by the sum
};

// Up to kChunkK<T> elements, the rest zeros.
template <class T>
__device__ inline void load_chunk(const T* from, int64_t count, bool aligned,
                                  AccOf<T> (&values)[kChunkK<T>]) {
  if (aligned && count >= kChunkK<T>) {
    const Chunk<T> chunk = *reinterpret_cast<const Chunk<T>*>(from);
#pragma unroll
    for (int i = 0; i < kChunkK<T>; ++i) values[i] = to_acc(chunk.values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kChunkK<T>; ++i) values[i] = i < count ? to_acc(from[i]) : AccOf<T>(0);
  }
}

__device__ inline int64_t attention_source(const AttentionStepParams& p, int64_t row) {
  return p.source == nullptr ? row : p.source[row];
}

__device__ inline int64_t attention_length(const AttentionStepParams& p, int64_t source) {
  if (p.lengths == nullptr) return p.S;
  const int64_t length = p.lengths[source];
  return length < 0 ? 0 : length < p.S ? length : p.S;
}

// What a part's exponentials are multiplied by. A row of nothing but -inf has no softmax: NaN.
template <class A>
__device__ inline A part_factor(const SoftmaxPart<A>& part, const SoftmaxPart<A>& all) {
  return exp_of(part.max - all.max) / all.sum;
}

template <class T, bool kAdditive>
struct AttentionBlock {
  using A = AccOf<T>;
  static constexpr int kVec = kChunkK<T>;

  const AttentionStepParams& p;
  const AttentionWork<A>& work;
  const int64_t row, source;
  const int64_t first;  // position
  const int n;          // positions of this part

  __device__ const T* key(int i) const {
    return static_cast<const T*>(p.keys) + source * p.keys_stride_b + (first + i) * p.keys_stride_s;
  }
  __device__ const T* value(int i) const {
    return static_cast<const T*>(p.values) + source * p.values_stride_b +
           (first + i) * p.values_stride_s;
  }

  __device__ void load_query(int64_t a, A (&query)[kVec]) const {
    if (work.query == nullptr) {
      return load_chunk(static_cast<const T*>(p.query) + row * p.Q + a, p.A - a, work.rest_aligned,
                        query);
    }
    // Rows of float or double, each aligned.
    const A* from = work.query + row * work.query_stride + a;
#pragma unroll
    for (int i = 0; i < kVec; i += kChunkK<A>) {
      A piece[kChunkK<A>];
      load_chunk(from + i, p.A - a - i, true, piece);
#pragma unroll
      for (int j = 0; j < kChunkK<A>; ++j) query[i + j] = piece[j];
    }
  }

  __device__ void find_scores(A* scores) const {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    for (int i = warp * kTogether; i < n; i += kAttentionWarps * kTogether) {
      A sums[kTogether] = {};
      for (int64_t a = lane * kVec; a < p.A; a += 32 * kVec) {
        A query[kVec], v[kVec];
        load_query(a, query);
        if (kAdditive) {
          load_chunk(static_cast<const T*>(p.v) + a, p.A - a, work.rest_aligned, v);
        }
        A keys[kTogether][kVec];
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
          load_chunk(key(min(i + j, n - 1)) + a, p.A - a, work.keys_aligned, keys[j]);
        }
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
#pragma unroll
          for (int k = 0; k < kVec; ++k) {
            sums[j] +=
                kAdditive ? v[k] * Math<A>::tanh(query[k] + keys[j][k]) : query[k] * keys[j][k];
          }
        }
      }
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        const A score = warp_sum(sums[j]) * (kAdditive ? A(1) : A(p.scale));
        if (lane == j && i + j < n) scores[i + j] = score;
      }
    }
  }

  // Every warp finds the same; exps[i] becomes exp(score - maximum), in whole memory `exps`.
  __device__ SoftmaxPart<A> soften(const A* scores, A* exps) const {
    A mine[kPart / 32];
#pragma unroll
    for (int j = 0; j < kPart / 32; ++j) {
      const int i = int(threadIdx.x) % 32 + 32 * j;
      mine[j] = i < n ? scores[i] : minus_infinity<A>();
    }
    const SoftmaxPart<A> part = warp_softmax_part(mine);
    for (int i = threadIdx.x; i < n; i += kAttentionThreads) {
      exps[i] = exp_of(scores[i] - part.shift());
    }
    return part;
  }

  // finish(c, sum over i of exps[i] * values[i][c]) for each column c. Where C leaves threads over,
  // groups of them share the positions, and their sums are added in order.
  template <class Finish>
  __device__ void find_context(const A* exps, A* sums, const Finish& finish) const {
    const int64_t vectors = (p.C + kVec - 1) / kVec;
    const int width = int(min(vectors, int64_t(kAttentionThreads)));
    const int groups = kAttentionThreads / width;
    const int group = int(threadIdx.x) / width, vector = int(threadIdx.x) % width;
    for (int64_t block = 0; block < vectors; block += width) {
      const int64_t c = (block + vector) * kVec;
      A context[kVec] = {};
      if (group < groups && c < p.C) {
#pragma unroll 4
        for (int i = group; i < n; i += groups) {
          A values[kVec];
          load_chunk(value(i) + c, p.C - c, work.values_aligned, values);
#pragma unroll
          for (int k = 0; k < kVec; ++k) context[k] += exps[i] * values[k];
        }
      }
      if (groups > 1) {  // then there is one block of columns only
#pragma unroll
        for (int k = 0; k < kVec; ++k) sums[threadIdx.x * kVec + k] = context[k];
        __syncthreads();
        for (int g = 1; g < groups && group == 0; ++g) {
#pragma unroll
          for (int k = 0; k < kVec; ++k) context[k] += sums[(g * width + vector) * kVec + k];
        }
      }
      if (group > 0) continue;
      for (int k = 0; k < kVec && c + k < p.C; ++k) finish(c + k, context[k]);
    }
  }
};

// A block a part of a row.
template <class T, bool kAdditive>
__global__ void __launch_bounds__(kAttentionThreads, 3)
    attention_kernel(const __grid_constant__ AttentionStepParams p,
                     const __grid_constant__ AttentionWork<AccOf<T>> work) {
  using A = AccOf<T>;
  GPU_SHARED(A, scores, [kPart]);
  GPU_SHARED(A, exps, [kPart]);
  GPU_SHARED(A, sums, [kAttentionThreads * kChunkK<T>]);
  const int64_t row = int64_t(blockIdx.x) / work.parts, part = int64_t(blockIdx.x) % work.parts;
  const int64_t source = attention_source(p, row);
  const int64_t length = attention_length(p, source), first = part * kPart;
  const int n = int(max(min(length - first, int64_t(kPart)), int64_t(0)));
  T* const context = static_cast<T*>(p.context) + row * p.C;
  T* const weights = static_cast<T*>(p.weights) + row * p.S;
  if (n == 0) {
    if (work.parts > 1) return;  // the second kernel looks after it
    for (int64_t c = threadIdx.x; c < p.C; c += kAttentionThreads) context[c] = from_acc<T>(A(0));
    for (int64_t s = threadIdx.x; s < p.S; s += kAttentionThreads) weights[s] = from_acc<T>(A(0));
    return;
  }
  const AttentionBlock<T, kAdditive> block{p, work, row, source, first, n};
  block.find_scores(scores);
  __syncthreads();
  const SoftmaxPart<A> softmax = block.soften(scores, exps);
  __syncthreads();
  if (work.parts > 1) {
    const int64_t at = row * work.parts + part;
    if (threadIdx.x == 0) work.softmax[at] = softmax;
    for (int i = threadIdx.x; i < n; i += kAttentionThreads) work.exps[at * kPart + i] = exps[i];
    block.find_context(exps, sums, [&](int64_t c, A sum) { work.contexts[at * p.C + c] = sum; });
    return;
  }
  const A factor = part_factor(softmax, softmax);
  for (int64_t s = threadIdx.x; s < p.S; s += kAttentionThreads) {
    weights[s] = from_acc<T>(s < n ? exps[s] * factor : A(0));
  }
  block.find_context(exps, sums, [&](int64_t c, A sum) { context[c] = from_acc<T>(sum * factor); });
}

// Blocks of a row in the second kernel: each has some columns and some positions.
constexpr int64_t kMergePositions = 4096;
inline int64_t attention_merge_blocks(const AttentionStepParams& p) {
  return std::max((p.C + kAttentionThreads - 1) / kAttentionThreads,
                  (p.S + kMergePositions - 1) / kMergePositions);
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_merge_kernel(const __grid_constant__ AttentionStepParams p,
                           const __grid_constant__ AttentionWork<AccOf<T>> work, int64_t blocks) {
  using A = AccOf<T>;
  const int64_t row = int64_t(blockIdx.x) / blocks, block = int64_t(blockIdx.x) % blocks;
  const int64_t length = attention_length(p, attention_source(p, row));
  const int64_t used = (length + kPart - 1) / kPart;
  const SoftmaxPart<A>* parts = work.softmax + row * work.parts;
  const SoftmaxPart<A> all = warp_merge_parts(parts, used);

  const int64_t c = block * kAttentionThreads + threadIdx.x;
  if (c < p.C) {
    A total = 0;
#pragma unroll 4
    for (int64_t j = 0; j < used; ++j) {
      const A share = work.contexts[(row * work.parts + j) * p.C + c];
      const A factor = part_factor(parts[j], all);
      total = j == 0 ? share * factor : total + share * factor;
    }
    static_cast<T*>(p.context)[row * p.C + c] = from_acc<T>(total);
  }
  const int64_t end = min((block + 1) * kMergePositions, p.S);
  for (int64_t s = block * kMergePositions + threadIdx.x; s < end; s += kAttentionThreads) {
    A weight = 0;
    if (s < length) {
      weight = work.exps[row * work.parts * kPart + s] * part_factor(parts[s / kPart], all);
    }
    static_cast<T*>(p.weights)[row * p.S + s] = from_acc<T>(weight);
  }
}

}  // namespace seq2seq_ext::kernels::cuda
