// SPDX-License-Identifier: MIT
// Vocabulary pick: projection, log-softmax and pick in one pass over the weights.
//
// A block has a slice of the vocabulary and kN batch rows. It goes through its slice tile by tile:
// the tile's logits leave the product's registers for shared memory, where a warp takes them a
// batch row at a time and updates that row's softmax part and what is kept of it (KeepBest,
// KeepList). A second, small kernel puts the slices' results together, in their order, a warp or a
// block a row (vocab_merge.cuh). It could be the last block to arrive, but the counter for that
// would have to be zeroed by a launch of its own, and one block would do what many can do at once.
//
// How V is cut depends on V and the device alone, and so does every sum's order: a row's result
// is the same bits in every batch.
#pragma once

#include "common/params.h"
#include "cuda/philox.cuh"
#include "cuda/product.cuh"
#include "cuda/softmax.cuh"
#include "cuda/vocab_list.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr int kVocabTile = 128;  // words a tile: a lane has four of them, one run of Philox
constexpr int kVocabWarps = 4;

// A word by the size of its key, or its logit; of equal ones the lowest comes first.
template <class A>
struct Candidate {
  A key, logit;
  int index;

  __device__ static Candidate none() { return {minus_infinity<A>(), A(0), INT32_MAX}; }
  __device__ bool beats(const Candidate& other) const {
    return comes_first(key, index, other.key, other.index);
  }
};

// The best of all lanes' candidates, in every lane.
template <class A>
__device__ inline Candidate<A> warp_best(Candidate<A> mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const Candidate<A> other{__shfl_xor_sync(kAllLanes, mine.key, step),
                             __shfl_xor_sync(kAllLanes, mine.logit, step),
                             __shfl_xor_sync(kAllLanes, mine.index, step)};
    if (other.beats(mine)) mine = other;
  }
  return mine;
}

// Between the two kernels, for the B rows of a launch.
template <class A>
struct VocabWork {
  int64_t slice_tiles, slices;
  A inverse_temperature;         // of the logits that are kept; with `plain` 1
  A key_scale;                   // from those to what is picked by: with `plain` 1 / temperature
  int64_t first_row;             // of the whole batch
  SoftmaxPart<A>* parts;         // (B, slices)
  Candidate<A>* best = nullptr;  // (B, slices), for K == 1
  A* list_logits = nullptr;      // (B, slices, K), for lists; descending
  int* list_indices = nullptr;   // (B, slices, K)
  A* logits = nullptr;           // (B, V), where K is too large for lists; and for sorting,
  char* sort = nullptr;          // sort_bytes_per_row() a row
  A* unpenalized = nullptr;      // (B, V): the logits of words seen, as they were; no others
};

// Shared memory of a tile's logits: columns of batch rows, 32 words and a gap of 8. The writes of
// the product's fragments, and a lane's reads of words 8 apart, then touch every bank once.
template <class A, int kN>
struct LogitsStage {
  static constexpr int kColumns = kN < 16 ? kN : 16;
  static constexpr int kStride = kVocabTile / 32 * 40 + 4;

  A* values;

  __device__ explicit LogitsStage(gpu::Carver& carver)
      : values(carver.take<A>(kColumns * kStride, 128)) {}
  __device__ A& at(int column, int word) const {
    return values[column * kStride + word / 32 * 40 + word % 32];
  }
  __host__ __device__ static constexpr size_t shared_bytes() {
    return sizeof(A) * kColumns * kStride + 128;
  }
};

// Word 0 .. 3 of a lane, within the tile.
__device__ inline int lane_word(int j) {
  const int lane = int(threadIdx.x) % 32;
  return lane / 8 * 32 + 8 * j + lane % 8;
}

// ---------------------------------------------------------------------------------------------------------------------
// What is kept of a batch row beside its softmax part. add() takes logits after bans and penalty,
// and those that log-probabilities are of. It and write() are called by a warp; a column is always
// the same warp's.

// The best word, by logit or, with a seed, by logit plus noise. Can hand out all logits besides.
template <class A, int kN>
struct KeepBest {
  Candidate<A>* best;  // [kN]

  __device__ KeepBest(gpu::Carver& carver, const VocabPickParams&)
      : best(carver.take<Candidate<A>>(kN, 16)) {}
  static constexpr size_t shared_bytes() { return sizeof(Candidate<A>) * kN + 16; }

  __device__ void clear(int column, const VocabPickParams&) {
    if (threadIdx.x % 32 == 0) best[column] = Candidate<A>::none();
  }

  __device__ void add(int column, int64_t row, int64_t first_word, const A (&logits)[4],
                      const A (&plain)[4], const VocabPickParams& p, const VocabWork<A>& work) {
    A noise[4] = {};
    if (p.seed != nullptr) {
      const int64_t id = p.rows != nullptr ? p.rows[row] : work.first_row + row;
      const DrawKey key{uint64_t(*p.seed), uint32_t(*p.step), uint64_t(id)};
      Philox random = key.counter(uint32_t(first_word / 4) + threadIdx.x % 32);
      random.run(key.seed);
#pragma unroll
      for (int j = 0; j < 4; ++j) noise[j] = gumbel(random.word[j], A{});
    }
    Candidate<A> mine = Candidate<A>::none();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t word = first_word + lane_word(j);
      if (word >= p.V) continue;
      const Candidate<A> other{fma_of(logits[j], work.key_scale, noise[j]), plain[j], int(word)};
      if (other.beats(mine)) mine = other;
      if (work.logits != nullptr) work.logits[row * p.V + word] = logits[j];
    }
    mine = warp_best(mine);
    if (threadIdx.x % 32 == 0 && mine.beats(best[column])) best[column] = mine;
  }

  __device__ void write(int column, int64_t row, int64_t slice, const VocabPickParams&,
                        const VocabWork<A>& work) const {
    if (threadIdx.x % 32 == 0 && work.best != nullptr) {
      work.best[row * work.slices + slice] = best[column];
    }
  }
};

// The K <= kMaxList best words, in order. A lane reads what it has itself written.
template <class A, int kN>
struct KeepList {
  A* logits;     // [kN][kMaxList]
  int* indices;  // [kN][kMaxList]

  __device__ KeepList(gpu::Carver& carver, const VocabPickParams&)
      : logits(carver.take<A>(kN * kMaxList, 16)), indices(carver.take<int>(kN * kMaxList, 16)) {}
  static constexpr size_t shared_bytes() { return (sizeof(A) + sizeof(int)) * kN * kMaxList + 32; }

  __device__ void clear(int column, const VocabPickParams& p) {
    WarpList<A>(int(p.K)).store(logits + column * kMaxList, indices + column * kMaxList);
  }

  __device__ void add(int column, int64_t, int64_t first_word, const A (&values)[4], const A (&)[4],
                      const VocabPickParams& p, const VocabWork<A>&) {
    WarpList<A> list(int(p.K), logits + column * kMaxList, indices + column * kMaxList);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t word = first_word + lane_word(j);
      list.add(values[j], int(word), word < p.V);
    }
    list.store(logits + column * kMaxList, indices + column * kMaxList);
  }

  __device__ void write(int column, int64_t row, int64_t slice, const VocabPickParams& p,
                        const VocabWork<A>& work) const {
    const int64_t to = (row * work.slices + slice) * p.K;
    for (int k = threadIdx.x % 32; k < p.K; k += 32) {
      work.list_logits[to + k] = logits[column * kMaxList + k];
      work.list_indices[to + k] = indices[column * kMaxList + k];
    }
  }
};

// ---------------------------------------------------------------------------------------------------------------------

template <class T, int kN, class Keep>
struct VocabBlock {
  using A = AccOf<T>;
  // Three stages leave room for two blocks a multiprocessor.
  using Tile =
      Product<T, kVocabTile, kN, kVocabWarps, kN == 8 ? default_stages(kVocabTile + kN) : 3>;
  using Stage = LogitsStage<A, kN>;
  static constexpr int kThreads = Tile::kThreads;

  static constexpr size_t shared_bytes() {
    return Tile::shared_bytes() + Stage::shared_bytes() + sizeof(SoftmaxPart<A>) * kN + 16 +
           Keep::shared_bytes();
  }

  const VocabPickParams& p;
  const VocabWork<A>& work;
  const int64_t first_row;
  Tile tile;
  Stage stage;
  SoftmaxPart<A>* parts;  // [kN]
  Keep keep;

  __device__ VocabBlock(const VocabPickParams& p, const VocabWork<A>& work, int64_t first_row,
                        gpu::Carver& carver)
      : p(p),
        work(work),
        first_row(first_row),
        tile(carver),
        stage(carver),
        parts(carver.take<SoftmaxPart<A>>(kN, 16)),
        keep(carver, p) {}

  // Calls f(column, row) for each of this warp's batch rows among columns first ... first + count.
  template <class F>
  __device__ void for_columns(int first, int count, const F& f) {
    for (int i = int(threadIdx.x) / 32; i < count; i += kVocabWarps) {
      if (first_row + first + i < p.B) f(first + i, first_row + first + i);
    }
  }

  __device__ void run(int64_t slice) {
    for_columns(0, kN, [&](int column, int64_t) {
      if (threadIdx.x % 32 == 0) parts[column] = SoftmaxPart<A>::none();
      keep.clear(column, p);
    });
    const int64_t tiles = (p.V + kVocabTile - 1) / kVocabTile;
    const int64_t begin = slice * work.slice_tiles;
    for (int64_t t = begin; t < min(begin + work.slice_tiles, tiles); ++t) {
      run_tile(t * kVocabTile);
    }
    for_columns(0, kN, [&](int column, int64_t row) {
      if (threadIdx.x % 32 == 0) work.parts[row * work.slices + slice] = parts[column];
      keep.write(column, row, slice, p, work);
    });
  }

  __device__ void run_tile(int64_t first_word) {
    const T* weight = static_cast<const T*>(p.weight) + first_word * p.H;
    const T* hidden = static_cast<const T*>(p.hidden) + first_row * p.H;
    A acc[Tile::kRows][Tile::kCols] = {};
    tile.run([&](int i) -> const T* { return first_word + i < p.V ? weight + i * p.H : nullptr; },
             [&](int i) -> const T* { return first_row + i < p.B ? hidden + i * p.H : nullptr; },
             p.H, rows_aligned<T>(p.weight, p.H, p.H) && rows_aligned<T>(p.hidden, p.H, p.H), acc);
    finish_logits(first_word, acc);
#pragma unroll 1
    for (int first = 0; first < kN && first_row + first < p.B; first += Stage::kColumns) {
      // All indices of acc are constants: it stays in registers.
#pragma unroll
      for (int c = 0; c < Tile::kCols; ++c) {
        if (8 * (c / 2) / Stage::kColumns * Stage::kColumns != first) continue;
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r) {
          stage.at(Tile::col(c) - first, Tile::row(r)) = acc[r][c];
        }
      }
      __syncthreads();
      for_columns(first, Stage::kColumns, [&](int column, int64_t row) {
        run_column(column, column - first, row, first_word);
      });
      __syncthreads();
    }
  }

  // From products to logits: bias and temperature; words past the last become -inf.
  __device__ void finish_logits(int64_t first_word, A (&acc)[Tile::kRows][Tile::kCols]) const {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
      const int64_t word = first_word + Tile::row(r);
      const bool valid = word < p.V;
      const A bias =
          valid && p.bias != nullptr ? to_acc(static_cast<const T*>(p.bias)[word]) : A(0);
#pragma unroll
      for (int c = 0; c < Tile::kCols; ++c) {
        acc[r][c] = valid ? (acc[r][c] + bias) * work.inverse_temperature : minus_infinity<A>();
      }
    }
  }

  __device__ void run_column(int column, int place, int64_t row, int64_t first_word) {
    const int lane = int(threadIdx.x) % 32;
    unsigned banned = 0, seen = 0;  // bits of the 32 words that hold this lane's
    const int64_t group = first_word / 32 + lane / 8, words = (p.V + 31) / 32;
    if (p.banned != nullptr && group < words) {
      banned = unsigned(p.banned[(work.first_row + row) / p.rows_a_ban * words + group]);
    }
    if (p.seen != nullptr && group < words) {
      seen = unsigned(p.seen[(work.first_row + row) * words + group]);
    }
    A plain[4], logits[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int bit = 8 * j + lane % 8;
      plain[j] = logits[j] = stage.at(place, lane_word(j));
      if (seen >> bit & 1) logits[j] = penalized(plain[j], row, first_word + lane_word(j));
      if (banned >> bit & 1) logits[j] = minus_infinity<A>();
      if (!p.plain) plain[j] = logits[j];
    }
    const SoftmaxPart<A> part = warp_softmax_part(plain);
    if (lane == 0) parts[column] = parts[column] + part;
    keep.add(column, row, first_word, logits, plain, p, work);
  }

  __device__ A penalized(A logit, int64_t row, int64_t word) const {
    if (work.unpenalized != nullptr && word < p.V) work.unpenalized[row * p.V + word] = logit;
    const double penalty = p.repetition_penalty;
    return A(logit > A(0) ? double(logit) / penalty : double(logit) * penalty);
  }
};

template <class T, int kN, template <class, int> class Keep>
__global__ void __launch_bounds__(32 * kVocabWarps, 2)
    vocab_kernel(const __grid_constant__ VocabPickParams p,
                 const __grid_constant__ VocabWork<AccOf<T>> work) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  // Blocks with the same weights are neighbours: they find them in the cache.
  const auto batch_tiles = unsigned((p.B + kN - 1) / kN);
  const int64_t first_row = int64_t(blockIdx.x % batch_tiles) * kN;
  VocabBlock<T, kN, Keep<AccOf<T>, kN>> block(p, work, first_row, carver);
  block.run(blockIdx.x / batch_tiles);
}

}  // namespace seq2seq_ext::kernels::cuda
