// SPDX-License-Identifier: MIT
// One K tile of a product in shared memory, and the multiplication of it.
//
// A tile holds 128 bytes of each row: 8 chunks of 16 bytes, chunk j of row i at place j ^ (i % 8)
// of its row. Eight rows read at one chunk (ldmatrix, or the lanes of a warp), or eight chunks of
// one row written by eight lanes, then touch every bank once.
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

template <class T>
__device__ inline Chunk<T>* tile_chunk(Chunk<T>* tile, int row, int chunk) {
  return tile + row * kTileChunks + (chunk ^ (row % kTileChunks));
}
template <class T>
__device__ inline const Chunk<T>* tile_chunk(const Chunk<T>* tile, int row, int chunk) {
  return tile + row * kTileChunks + (chunk ^ (row % kTileChunks));
}

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

  __device__ static void add(const Chunk<T>* w, const Chunk<T>* x, Acc (&acc)[kRows][kCols]) {
    const int first = Shape::split() * Shape::kChunks;
#pragma unroll
    for (int group = 0; group < kCols; group += kGroup) {
      Acc chain[kRows][kGroup] = {};
#pragma unroll 1
      for (int j = first; j < first + Shape::kChunks; ++j) {
        Chunk<T> a[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) a[r] = *tile_chunk(w, Shape::row(r), j);
#pragma unroll
        for (int c = 0; c < kGroup; ++c) {
          const Chunk<T> b = *tile_chunk(x, Shape::col(group + c), j);
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

  __device__ static void add(const Chunk<T>* w, const Chunk<T>* x, float (&acc)[kRows][kCols]) {
    // ldmatrix: lane l names row l % 8 of matrix l / 8. Four matrices are a piece of W (rows 0 .. 7
    // and 8 .. 15 at the first eight k, then at the second), or two strips of X.
    const int lane = Shape::lane();
    const int first = Shape::split() * Shape::kChunks;
#pragma unroll
    for (int step = 0; step < Shape::kChunks; step += 2) {
      uint32_t a[kPieces][4];
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
        const int row = Shape::warp_row() + 16 * piece + lane % 16;
        gpu::ldmatrix_x4(a[piece], tile_chunk(w, row, first + step + lane / 16));
      }
#pragma unroll
      for (int strip = 0; strip < kStrips; strip += 2) {
        const int second =
            strip + 1 < kStrips ? lane / 16 : 0;  // no second strip: the first, twice
        uint32_t b[4];
        gpu::ldmatrix_x4(
            b, tile_chunk(x, 8 * (strip + second) + lane % 8, first + step + lane / 8 % 2));
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

}  // namespace seq2seq_ext::kernels::cuda
