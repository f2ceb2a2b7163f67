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
// W and X pass through a ring of kStages tiles of 128 bytes a row in shared memory
// (product_tile.cuh), filled by asynchronous copies kStages - 1 tiles ahead of the multiplication.
#pragma once

#include "cuda/product_tile.cuh"

namespace seq2seq_ext::kernels::cuda {

// Tiles in the ring: 48 KB on their way for every SM keep its memory busy.
constexpr int default_stages(int rows) {
  const int ahead = ((48 << 10) + rows * kTileBytes - 1) / (rows * kTileBytes);
  return ahead < 2 ? 3 : ahead > 7 ? 8 : ahead + 1;
}

template <class T, int kM_, int kN_, int kWarps_, int kStages_ = default_stages(kM_ + kN_)>
struct Product {
  using Acc = AccOf<T>;
  static constexpr int kM = kM_, kN = kN_, kWarps = kWarps_, kStages = kStages_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpRows = kM / kWarps;
  static constexpr int kRows = kWarpRows / 8, kCols = kN / 4;  // of one thread
  static_assert(kM % (16 * kWarps) == 0 && kN % 8 == 0 && kStages >= 2);

  // Dynamic shared memory that the constructor takes from the Carver.
  __host__ __device__ static constexpr size_t shared_bytes() {
    return size_t(kStages) * (kM + kN) * kTileBytes;
  }

  __device__ explicit Product(gpu::Carver& carver)
      : w_tiles_(carver.take<Chunk<T>>(kStages * kM * kTileChunks, 128)),
        x_tiles_(carver.take<Chunk<T>>(kStages * kN * kTileChunks, 128)) {}

  __device__ static int row(int r) {
    return int(threadIdx.x) / 32 * kWarpRows + 8 * r + int(threadIdx.x) % 32 / 4;
  }
  __device__ static int col(int c) { return 8 * (c / 2) + 2 * (int(threadIdx.x) % 4) + c % 2; }

  // acc[r][c] += sum over k < K of w_row(row(r))[k] * x_row(col(c))[k]. The functions map a row of
  // the tile to its address; null: a row of zeros. `aligned`: all rows start at multiples of 16
  // bytes and K is one of 16 / sizeof(T); it changes no bit of the result. All threads of the block
  // call it; shared memory is free again when it returns.
  template <class WRow, class XRow>
  __device__ void run(const WRow& w_row, const XRow& x_row, int64_t K, bool aligned,
                      Acc (&acc)[kRows][kCols]) {
    Source source(w_row, x_row, K, aligned);
    const auto fill = [&](int stage) { source.fill(w_tile(stage), x_tile(stage)); };
    int stage = 0;
    start(fill);
    consume(source.tiles(), fill, stage, acc);
    __syncthreads();
  }

  // Two products, the same as run() twice, without the ring running empty between them. The two acc
  // may be one array.
  template <class WRow, class XRow, class WRow2, class XRow2>
  __device__ void run_pair(const WRow& w_row, const XRow& x_row, int64_t K, bool aligned,
                           Acc (&acc)[kRows][kCols], const WRow2& w_row2, const XRow2& x_row2,
                           int64_t K2, bool aligned2, Acc (&acc2)[kRows][kCols]) {
    Source source(w_row, x_row, K, aligned);
    bool second = false;
    const auto fill = [&](int stage) {
      if (!second && source.exhausted()) {
        source = Source(w_row2, x_row2, K2, aligned2);
        second = true;
      }
      source.fill(w_tile(stage), x_tile(stage));
    };
    int stage = 0;
    start(fill);
    consume(Source::tiles(K), fill, stage, acc);
    consume(Source::tiles(K2), fill, stage, acc2);
    __syncthreads();
  }

 private:
  // The rows of one operand whose chunks this thread copies: chunk threadIdx.x % 8 of every
  // (kThreads / 8)th row.
  template <int kCount>
  struct Rows {
    static constexpr int kStep = kThreads / kTileChunks;
    static constexpr int kOwn = (kCount + kStep - 1) / kStep;
    const T* at[kOwn];

    template <class F>
    __device__ explicit Rows(const F& address) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int row = int(threadIdx.x) / kTileChunks + i * kStep;
        at[i] = row < kCount ? address(row) : nullptr;
      }
    }

    // Copies `count` elements from k on, and zeros behind them.
    __device__ void fill(Chunk<T>* tile, int64_t k, int count, bool aligned) const {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int row = int(threadIdx.x) / kTileChunks + i * kStep;
        if (kCount % kStep != 0 && row >= kCount) break;
        Chunk<T>* place = tile_chunk(tile, row, int(threadIdx.x) % kTileChunks);
        if (at[i] == nullptr || count == 0) {
          *place = Chunk<T>{};
        } else if (aligned) {
          gpu::cp_async16(place, at[i] + k);
        } else {
          Chunk<T> values{};
#pragma unroll
          for (int j = 0; j < kChunkK<T>; ++j) {
            if (j < count) values.values[j] = at[i][k + j];
          }
          *place = values;
        }
      }
    }
  };

  // Both operands, read tile by tile.
  class Source {
   public:
    template <class WRow, class XRow>
    __device__ Source(const WRow& w_row, const XRow& x_row, int64_t K, bool aligned)
        : w_(w_row), x_(x_row), K_(K), aligned_(aligned) {}

    __device__ static int tiles(int64_t K) { return int((K + kTileK<T> - 1) / kTileK<T>); }
    __device__ int tiles() const { return tiles(K_); }
    __device__ bool exhausted() const { return k_ >= K_; }

    // The next tile; past the last, nothing.
    __device__ void fill(Chunk<T>* w_tile, Chunk<T>* x_tile) {
      if (!exhausted()) {
        const int64_t k = k_ + int(threadIdx.x) % kTileChunks * kChunkK<T>;
        const int count = int(min(max(K_ - k, int64_t(0)), int64_t(kChunkK<T>)));
        w_.fill(w_tile, k, count, aligned_);
        x_.fill(x_tile, k, count, aligned_);
        k_ += kTileK<T>;
      }
      gpu::cp_async_commit();  // an empty group, too: waiting counts groups
    }

   private:
    Rows<kM> w_;
    Rows<kN> x_;
    int64_t k_ = 0, K_;
    bool aligned_;
  };

  __device__ Chunk<T>* w_tile(int stage) const { return w_tiles_ + stage * kM * kTileChunks; }
  __device__ Chunk<T>* x_tile(int stage) const { return x_tiles_ + stage * kN * kTileChunks; }

  // Fills all stages but the last.
  template <class Fill>
  __device__ void start(const Fill& fill) {
#pragma unroll 1
    for (int stage = 0; stage < kStages - 1; ++stage) fill(stage);
  }

  template <class Fill>
  __device__ void consume(int tiles, const Fill& fill, int& stage, Acc (&acc)[kRows][kCols]) {
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
      gpu::cp_async_wait<kStages - 2>();
      __syncthreads();  // this tile is there for all threads, and all are done with the one before
      fill(stage == 0 ? kStages - 1 : stage - 1);
      TileProduct<T, kM, kN, kWarps>::add(w_tile(stage), x_tile(stage), acc);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
  }

  Chunk<T>* w_tiles_;  // [kStages][kM]
  Chunk<T>* x_tiles_;  // [kStages][kN]
};

// Whether Product::run may be told that rows `stride` elements apart from `base` are aligned.
template <class T>
bool rows_aligned(const void* base, int64_t stride, int64_t K) {
  constexpr int64_t kPer16 = 16 / sizeof(T);
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && stride % kPer16 == 0 && K % kPer16 == 0;
}

}  // namespace seq2seq_ext::kernels::cuda
