// SPDX-License-Identifier: MIT
// One K tile of a product in shared memory: its layout, its filling and the multiplication of it.
//
// A tile holds 128 bytes of k of every row, in lines of chunks of 16 bytes. Where an operand is
// contiguous along k, a line is a row's 8 chunks; where it is contiguous across its rows, a line is
// one k of all rows. Chunk j of line i lies at place j ^ (i % 8) of its line, so that eight lines
// read at one chunk (ldmatrix, or the lanes of a warp), or eight chunks of a line written by eight
// lanes, touch every bank once.
#pragma once

#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr int kTileBytes = 128;
constexpr int kTileChunks = kTileBytes / 16;

// Elements of a tile's row, of a chunk.
template <class T>
constexpr int kTileK = kTileBytes / int(sizeof(T));
template <class T>
constexpr int kChunkK = 16 / int(sizeof(T));

template <class T>
struct alignas(16) Chunk {
  T values[kChunkK<T>];
};

template <class T, int kLineChunks = kTileChunks>
__device__ inline Chunk<T>* tile_chunk(Chunk<T>* tile, int line, int chunk) {
  return tile + line * kLineChunks + (chunk ^ (line % 8));
}
template <class T, int kLineChunks = kTileChunks>
__device__ inline const Chunk<T>* tile_chunk(const Chunk<T>* tile, int line, int chunk) {
  return tile + line * kLineChunks + (chunk ^ (line % 8));
}

// Copies a chunk's first `count` elements, and zeros behind them, asynchronously where the address
// lets it.
template <class T>
__device__ inline void copy_chunk(Chunk<T>* place, const T* from, int count) {
  const auto address = reinterpret_cast<uintptr_t>(from);
  const auto bytes = [&](int offset, int size) {  // of the piece of `size` at `offset`
    return unsigned(min(max(count * int(sizeof(T)) - offset, 0), size));
  };
  const auto piecewise = [&](auto size) {
    constexpr int kSize = decltype(size)::value;
#pragma unroll
    for (int offset = 0; offset < 16; offset += kSize) {
      const unsigned n = bytes(offset, kSize);
      const char* source = reinterpret_cast<const char*>(from) + (n == 0 ? 0 : offset);
      gpu::cp_async<kSize>(reinterpret_cast<char*>(place) + offset, source, n);
    }
  };
  if (address % 16 == 0) {
    gpu::cp_async16(place, from, bytes(0, 16));
  } else if (address % 8 == 0) {
    piecewise(std::integral_constant<int, 8>());
  } else if (address % 4 == 0) {
    piecewise(std::integral_constant<int, 4>());
  } else {
    for (int i = 0; i < kChunkK<T>; ++i) place->values[i] = i < count ? from[i] : T(0.f);
  }
}

// A tile whose lines are rows ...
template <class T>
struct RowsView {
  const Chunk<T>* tile;

  // kChunkK values of one row, from k = chunk * kChunkK on.
  __device__ Chunk<T> values(int row, int chunk) const { return *tile_chunk(tile, row, chunk); }

  // What this lane names to ldmatrix (lane l: row l % 8 of matrix l / 8) for 16 rows and two chunks
  // of k: as a piece of the A operand, rows first ...
  __device__ void load_a(uint32_t (&a)[4], int row, int chunk) const {
    const int lane = int(threadIdx.x) % 32;
    gpu::ldmatrix_x4(a, tile_chunk(tile, row + lane % 16, chunk + lane / 16));
  }
  // ... or as two strips of the B operand, k first. `second`: where the second strip's rows lie
  // behind the first's, 8 or (there is none: the first again) 0.
  __device__ void load_b(uint32_t (&b)[4], int row, int second, int chunk) const {
    const int lane = int(threadIdx.x) % 32;
    gpu::ldmatrix_x4(b,
                     tile_chunk(tile, row + lane / 16 * second + lane % 8, chunk + lane / 8 % 2));
  }
};

// ... and one whose lines are k, of kCount rows each.
template <class T, int kCount>
struct ColumnsView {
  static constexpr int kLineChunks = kCount / kChunkK<T>;
  static_assert(kLineChunks % 8 == 0);
  const Chunk<T>* tile;

  __device__ Chunk<T> values(int row, int chunk) const {
    Chunk<T> result;
#pragma unroll
    for (int i = 0; i < kChunkK<T>; ++i) {
      const auto* line = tile_chunk<T, kLineChunks>(tile, chunk * kChunkK<T> + i, row / kChunkK<T>);
      result.values[i] = line->values[row % kChunkK<T>];
    }
    return result;
  }
  __device__ void load_a(uint32_t (&a)[4], int row, int chunk) const {
    const int lane = int(threadIdx.x) % 32, k = 8 * (chunk + lane / 16) + lane % 8;
    gpu::ldmatrix_x4_trans(a, tile_chunk<T, kLineChunks>(tile, k, row / 8 + lane / 8 % 2));
  }
  __device__ void load_b(uint32_t (&b)[4], int row, int second, int chunk) const {
    const int lane = int(threadIdx.x) % 32, k = 8 * (chunk + lane / 8 % 2) + lane % 8;
    gpu::ldmatrix_x4_trans(b, tile_chunk<T, kLineChunks>(tile, k, (row + lane / 16 * second) / 8));
  }
};

// acc += W X^T over one tile, by kWarps * kSplit warps: warp w (mod kWarps) has rows w kM / kWarps
// .. of W, and all columns; warp w / kWarps of the kSplit has that part of the tile's k. A thread,
// lane 4 g + t, owns rows 8 r + g of its warp and columns 8 (c / 2) + 2 t + c % 2. The order of a
// sum depends on kSplit alone.
template <int kM, int kN, int kWarps, int kSplit>
struct TileShape {
  static constexpr int kWarpRows = kM / kWarps;
  static constexpr int kRows = kWarpRows / 8, kCols = kN / 4;  // of a thread
  static constexpr int kChunks = kTileChunks / kSplit;         // of a warp
  static_assert(kM % (16 * kWarps) == 0 && kN % 8 == 0);
  static_assert(kSplit == 1 || kSplit == 2 || kSplit == 4);

  __device__ static int lane() { return int(threadIdx.x) % 32; }
  __device__ static int warp_row() { return int(threadIdx.x) / 32 % kWarps * kWarpRows; }
  __device__ static int split() { return int(threadIdx.x) / 32 / kWarps; }
  __device__ static int row(int r) { return warp_row() + 8 * r + lane() / 4; }
  __device__ static int col(int c) { return 8 * (c / 2) + 2 * (lane() % 4) + c % 2; }
};

// float and double: plain multiply-adds, in a chain of its own per tile: shorter chains round less.
template <class T, class Shape>
struct TileProduct {
  using Acc = AccOf<T>;
  static constexpr int kRows = Shape::kRows, kCols = Shape::kCols;

  // Columns whose chains are in registers at a time, beside all of acc.
  static constexpr int kGroup = kCols % 4 == 0 ? 4 : 2;

  template <class WView, class XView>
  __device__ static void add(const WView& w, const XView& x, Acc (&acc)[kRows][kCols]) {
    const int first = Shape::split() * Shape::kChunks;
#pragma unroll
    for (int group = 0; group < kCols; group += kGroup) {
      Acc chain[kRows][kGroup] = {};
#pragma unroll 1
      for (int j = first; j < first + Shape::kChunks; ++j) {
        Chunk<T> a[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) a[r] = w.values(Shape::row(r), j);
#pragma unroll
        for (int c = 0; c < kGroup; ++c) {
          const Chunk<T> b = x.values(Shape::col(group + c), j);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int k = 0; k < kChunkK<T>; ++k) chain[r][c] += a[r].values[k] * b.values[k];
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kGroup; ++c) acc[r][group + c] += chain[r][c];
      }
    }
  }
};

// 16-bit types: tensor cores, W as the A operand (16 x 16 pieces), X as the B operand (16 x 8).
template <class T, class Shape>
struct TensorTileProduct {
  static constexpr int kRows = Shape::kRows, kCols = Shape::kCols;
  static constexpr int kPieces = kRows / 2, kStrips = kCols / 2;
  static constexpr int kUnroll = kPieces * kStrips < 32 ? 4 : 1;  // large tiles: spare registers

  template <class WView, class XView>
  __device__ static void add(const WView& w, const XView& x, float (&acc)[kRows][kCols]) {
    const int first = Shape::split() * Shape::kChunks;
#pragma unroll(kUnroll)
    for (int step = 0; step < Shape::kChunks; step += 2) {
      uint32_t a[kPieces][4];
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
        w.load_a(a[piece], Shape::warp_row() + 16 * piece, first + step);
      }
#pragma unroll
      for (int strip = 0; strip < kStrips; strip += 2) {
        uint32_t b[4];
        x.load_b(b, 8 * strip, strip + 1 < kStrips ? 8 : 0, first + step);
#pragma unroll
        for (int i = 0; i < 2 && strip + i < kStrips; ++i) {
          const uint32_t b_strip[2] = {b[2 * i], b[2 * i + 1]};
#pragma unroll
          for (int piece = 0; piece < kPieces; ++piece) {
            multiply(acc, piece, strip + i, a[piece], b_strip);
          }
        }
      }
    }
  }

 private:
  __device__ static void multiply(float (&acc)[kRows][kCols], int piece, int strip,
                                  const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    float d[4] = {acc[2 * piece][2 * strip], acc[2 * piece][2 * strip + 1],
                  acc[2 * piece + 1][2 * strip], acc[2 * piece + 1][2 * strip + 1]};
    gpu::mma_m16n8k16(d, a, b, T{});
    acc[2 * piece][2 * strip] = d[0];
    acc[2 * piece][2 * strip + 1] = d[1];
    acc[2 * piece + 1][2 * strip] = d[2];
    acc[2 * piece + 1][2 * strip + 1] = d[3];
  }
};
template <class Shape>
struct TileProduct<bf16, Shape> : TensorTileProduct<bf16, Shape> {};
template <class Shape>
struct TileProduct<fp16, Shape> : TensorTileProduct<fp16, Shape> {};

// A ring of tiles in shared memory, filled kStages - 1 tiles ahead of their use. fill(stage) queues
// the copies of the next tile, if there is one, and always commits them; multiply(stage) uses them.
template <int kStages>
class TileRing {
 public:
  template <class Fill>
  __device__ explicit TileRing(const Fill& fill) {
#pragma unroll 1
    for (int stage = 0; stage < kStages - 1; ++stage) fill(stage);
  }

  template <class Fill, class Multiply>
  __device__ void consume(int tiles, const Fill& fill, const Multiply& multiply) {
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
      gpu::cp_async_wait<kStages - 2>();
      __syncthreads();  // this tile is there for all threads, and all are done with the one before
      fill(stage_ == 0 ? kStages - 1 : stage_ - 1);
      multiply(stage_);
      stage_ = stage_ == kStages - 1 ? 0 : stage_ + 1;
    }
  }

 private:
  int stage_ = 0;  // the next to be used
};

}  // namespace seq2seq_ext::kernels::cuda
