// SPDX-License-Identifier: MIT
// A block computes one tile of W X^T: kM rows of the large operand W by kN rows of the narrow one X
// (batch rows), in tensor cores for 16-bit types, in plain fused multiply-adds for float and
// double.
//
// The sum over K runs in one fixed order, the same whatever kN is and wherever in the tile a row
// lies: a row's result does not depend on the other rows, bit for bit.
//
// Thread (warp w, lane 4 g + t) owns elements (row(r), col(c)):
//   row(r) = w * kM / kWarps + 8 r + g      col(c) = 8 (c / 2) + 2 t + c % 2
// so with rows of W handed out such that row 8 r + g of a warp is gate r of unit g, a thread holds
// all gates of its unit (gates.cuh: GateTile).
//
// With kSplit > 1 there are kSplit groups of kWarps warps, each with a part of every K tile's k,
// and reduce() adds the groups' sums and hands every group its share of the columns. (The order of
// the sum then is another one, again the same for all sizes.)
//
// W and X pass through a ring of kStages tiles of 128 bytes a row in shared memory
// (product_tile.cuh), filled by asynchronous copies kStages - 1 tiles ahead of the multiplication.
#pragma once

#include "cuda/product_tile.cuh"

namespace seq2seq_ext::kernels::cuda {

// Tiles in the ring: 48 KB on their way for every SM keep its memory busy.
__host__ __device__ constexpr int default_stages(int rows) {
  const int ahead = ((48 << 10) + rows * kTileBytes - 1) / (rows * kTileBytes);
  return ahead < 2 ? 3 : ahead > 11 ? 12 : ahead + 1;
}

template <class T, int kM_, int kN_, int kWarps_, int kStages_ = default_stages(kM_ + kN_),
          int kSplit_ = 1>
struct Product {
  using Acc = AccOf<T>;
  using Shape = TileShape<kM_, kN_, kWarps_, kSplit_>;
  static constexpr int kM = kM_, kN = kN_, kWarps = kWarps_, kStages = kStages_, kSplit = kSplit_;
  static constexpr int kThreads = 32 * kWarps * kSplit;
  static constexpr int kRows = Shape::kRows, kCols = Shape::kCols;  // of one thread
  static_assert(kStages >= 2);

  // Dynamic shared memory that the constructor takes from the Carver.
  __host__ __device__ static constexpr size_t shared_bytes() {
    return size_t(kM + kN) * (kStages * kTileBytes + 2 * sizeof(const T*));
  }

  __device__ explicit Product(gpu::Carver& carver)
      : ring_(carver.take<Chunk<T>>(kStages * (kM + kN) * kTileChunks, 128)),
        rows_(carver.take<const T*>(2 * (kM + kN), 128)) {}

  __device__ static int row(int r) { return Shape::row(r); }
  __device__ static int col(int c) { return Shape::col(c); }

  // acc[r][c] += sum over k < K of w_row(row(r))[k] * x_row(col(c))[k]. The functions map a row of
  // the tile to its address; null: a row of zeros. `aligned`: all rows start at multiples of 16
  // bytes and K is one of 16 / sizeof(T); it changes no bit of the result. All threads of the block
  // call it; shared memory is free again when it returns.
  template <class WRow, class XRow>
  __device__ void run(const WRow& w_row, const XRow& x_row, int64_t K, bool aligned,
                      Acc (&acc)[kRows][kCols]) {
    find_rows(rows_, w_row, x_row);
    __syncthreads();
    Source source{rows_, K, aligned};
    const auto fill = [&](int stage) { source.fill(w_tile(stage), x_tile(stage)); };
    TileRing<kStages> ring(fill);
    ring.consume(tiles(K), fill, [&](int stage) { multiply(stage, acc); });
    __syncthreads();
  }

  // Two products, the same as run() twice, without the ring running empty between them. The two acc
  // may be one array.
  template <class WRow, class XRow, class WRow2, class XRow2>
  __device__ void run_pair(const WRow& w_row, const XRow& x_row, int64_t K, bool aligned,
                           Acc (&acc)[kRows][kCols], const WRow2& w_row2, const XRow2& x_row2,
                           int64_t K2, bool aligned2, Acc (&acc2)[kRows][kCols]) {
    find_rows(rows_, w_row, x_row);
    find_rows(rows_ + kM + kN, w_row2, x_row2);
    __syncthreads();
    Source source{rows_, K, aligned};
    bool second = false;
    const auto fill = [&](int stage) {
      if (!second && source.exhausted()) {
        source = Source{rows_ + kM + kN, K2, aligned2};
        second = true;
      }
      source.fill(w_tile(stage), x_tile(stage));
    };
    TileRing<kStages> ring(fill);
    ring.consume(tiles(K), fill, [&](int stage) { multiply(stage, acc); });
    ring.consume(tiles(K2), fill, [&](int stage) { multiply(stage, acc2); });
    __syncthreads();
  }

  // After run(), with kSplit > 1: the sums of all groups, for the columns share_col(c) of this
  // thread's share; threads without owns_share() have none. Its shared memory is free again once
  // the block has passed a barrier (run() begins with one).
  static constexpr int kShare = kCols < kSplit ? 1 : kCols / kSplit;
  __device__ static bool owns_share() { return Shape::split() * kShare < kCols; }
  __device__ static int share_col(int c) { return col(Shape::split() * kShare + c); }

  __device__ void reduce(const Acc (&acc)[kRows][kCols], Acc (&share)[kRows][kShare]) const {
    static_assert(kShare * kSplit >= kCols);
    static_assert(sizeof(Acc) * kSplit * kM * kN <= size_t(kStages) * (kM + kN) * kTileBytes);
    constexpr int kGroupThreads = 32 * kWarps;
    Acc* const sums = reinterpret_cast<Acc*>(ring_) + threadIdx.x % kGroupThreads;
    const auto place = [&](int split, int r, int c) -> Acc& {
      return sums[((split * kRows + r) * kCols + c) * kGroupThreads];
    };
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kCols; ++c) place(Shape::split(), r, c) = acc[r][c];
    }
    __syncthreads();
    if (!owns_share()) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kShare; ++c) {
        const int at = Shape::split() * kShare + c;
        Acc part[kSplit];
#pragma unroll
        for (int i = 0; i < kSplit; ++i) part[i] = place(i, r, at);
#pragma unroll
        for (int step = 1; step < kSplit; step *= 2) {
#pragma unroll
          for (int i = 0; i + step < kSplit; i += 2 * step) part[i] += part[i + step];
        }
        share[r][c] = part[0];
      }
    }
  }

 private:
  // Both operands, read tile by tile. The rows' addresses lie in shared memory: `row_table`.
  struct Source {
    const T* const* rows;  // [kM + kN]
    int64_t K;
    bool aligned;
    int64_t k = 0;

    __device__ bool exhausted() const { return k >= K; }

    // The next tile; past the last, nothing. A thread copies one chunk of every kStep-th row.
    __device__ void fill(Chunk<T>* w_tile, Chunk<T>* x_tile) {
      if (!exhausted()) {
        const int64_t begin = k + int(threadIdx.x) % kTileChunks * kChunkK<T>;
        const int64_t count = min(max(K - begin, int64_t(0)), int64_t(kChunkK<T>));
        fill_rows<kM>(w_tile, rows, begin, int(count));
        fill_rows<kN>(x_tile, rows + kM, begin, int(count));
        k += kTileK<T>;
      }
      gpu::cp_async_commit();  // an empty group, too: waiting counts groups
    }

    template <int kCount>
    __device__ void fill_rows(Chunk<T>* tile, const T* const* table, int64_t begin, int count) {
      constexpr int kStep = kThreads / kTileChunks;
#pragma unroll
      for (int i = 0; i < (kCount + kStep - 1) / kStep; ++i) {
        const int row = int(threadIdx.x) / kTileChunks + i * kStep;
        if (kCount % kStep != 0 && row >= kCount) break;
        Chunk<T>* place = tile_chunk(tile, row, int(threadIdx.x) % kTileChunks);
        const T* from = table[row];
        if (from == nullptr || count == 0) {
          *place = Chunk<T>{};
        } else if (aligned) {
          gpu::cp_async16(place, from + begin);
        } else {
          copy_chunk(place, from + begin, count);
        }
      }
    }
  };

  __device__ Chunk<T>* w_tile(int stage) const { return ring_ + stage * (kM + kN) * kTileChunks; }
  __device__ Chunk<T>* x_tile(int stage) const { return w_tile(stage) + kM * kTileChunks; }

  __device__ static int tiles(int64_t K) { return int((K + kTileK<T> - 1) / kTileK<T>); }

  template <class WRow, class XRow>
  __device__ static void find_rows(const T** table, const WRow& w_row, const XRow& x_row) {
    for (int i = threadIdx.x; i < kM + kN; i += kThreads) {
      table[i] = i < kM ? w_row(i) : x_row(i - kM);
    }
  }

  __device__ void multiply(int stage, Acc (&acc)[kRows][kCols]) const {
    const RowsView<T> w{w_tile(stage)}, x{x_tile(stage)};
    TileProduct<T, Shape>::add(w, x, acc);
  }

  Chunk<T>* ring_;  // [kStages][kM + kN] rows
  const T** rows_;  // [2][kM + kN]
};

// Whether Product::run may be told that rows `stride` elements apart from `base` are aligned.
template <class T>
__host__ __device__ inline bool rows_aligned(const void* base, int64_t stride, int64_t K) {
  constexpr int64_t kPer16 = 16 / sizeof(T);
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && stride % kPer16 == 0 && K % kPer16 == 0;
}

}  // namespace seq2seq_ext::kernels::cuda
