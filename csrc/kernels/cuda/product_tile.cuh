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

// acc += W X^T over one tile, thread (warp w, lane 4 g + t) owning rows w kM / kWarps + 8 r + g and
// columns 8 (c / 2) + 2 t + c % 2. The order of the sum depends on neither the row, the column nor
// the sizes. Here: float and double, by plain multiply-adds, in a chain of its own per tile:
// shorter chains round less.
template <class T, int kM, int kN, int kWarps>
struct TileProduct {
  using Acc = AccOf<T>;
  static constexpr int kWarpRows = kM / kWarps;
  static constexpr int kRows = kWarpRows / 8, kCols = kN / 4;

  // Columns whose chains are in registers at a time, beside all of acc.
  static constexpr int kGroup = kCols < 4 ? kCols : 4;
  static_assert(kCols % kGroup == 0);

  __device__ static void add(const Chunk<T>* w, const Chunk<T>* x, Acc (&acc)[kRows][kCols]) {
    const int lane = int(threadIdx.x) % 32;
    const int first_row = int(threadIdx.x) / 32 * kWarpRows + lane / 4;
    const int first_col = lane % 4 * 2;
#pragma unroll
    for (int group = 0; group < kCols; group += kGroup) {
      Acc chain[kRows][kGroup] = {};
#pragma unroll 1
      for (int j = 0; j < kTileChunks; ++j) {
        Chunk<T> a[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) a[r] = *tile_chunk(w, first_row + 8 * r, j);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          const int c = group + i;
          const Chunk<T> b = *tile_chunk(x, first_col + 8 * (c / 2) + c % 2, j);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int k = 0; k < kChunkK<T>; ++k) chain[r][i] += a[r].values[k] * b.values[k];
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kGroup; ++i) acc[r][group + i] += chain[r][i];
      }
    }
  }
};

// 16-bit types: tensor cores, W as the A operand (16 x 16 pieces), X as the B operand (16 x 8).
template <class T, int kM, int kN, int kWarps>
struct TensorTileProduct {
  static constexpr int kWarpRows = kM / kWarps;
  static constexpr int kRows = kWarpRows / 8, kCols = kN / 4;
  static constexpr int kPieces = kWarpRows / 16;

  __device__ static void add(const Chunk<T>* w, const Chunk<T>* x, float (&acc)[kRows][kCols]) {
    const int lane = int(threadIdx.x) % 32;
    // ldmatrix: lane l names row l % 8 of matrix l / 8. Four matrices are one piece of W (rows 0-7
    // and 8-15 at the first, then the second eight k) ...
    const int w_row = int(threadIdx.x) / 32 * kWarpRows + lane % 16, w_chunk = lane / 16;
    // ... or eight rows of X at 32 successive k.
    const int x_row = lane % 8, x_chunk = lane / 8;
#pragma unroll
    for (int chunk = 0; chunk < kTileChunks; chunk += 4) {
      uint32_t a[2][kPieces][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int piece = 0; piece < kPieces; ++piece) {
          gpu::ldmatrix_x4(a[half][piece],
                           tile_chunk(w, w_row + 16 * piece, chunk + 2 * half + w_chunk));
        }
      }
#pragma unroll
      for (int n = 0; n < kN / 8; ++n) {
        uint32_t b[4];
        gpu::ldmatrix_x4(b, tile_chunk(x, x_row + 8 * n, chunk + x_chunk));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t b_half[2] = {b[2 * half], b[2 * half + 1]};
#pragma unroll
          for (int piece = 0; piece < kPieces; ++piece)
            multiply(acc, piece, n, a[half][piece], b_half);
        }
      }
    }
  }

 private:
  __device__ static void multiply(float (&acc)[kRows][kCols], int piece, int n,
                                  const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    float d[4] = {acc[2 * piece][2 * n], acc[2 * piece][2 * n + 1], acc[2 * piece + 1][2 * n],
                  acc[2 * piece + 1][2 * n + 1]};
    gpu::mma_m16n8k16(d, a, b, T{});
    acc[2 * piece][2 * n] = d[0];
    acc[2 * piece][2 * n + 1] = d[1];
    acc[2 * piece + 1][2 * n] = d[2];
    acc[2 * piece + 1][2 * n + 1] = d[3];
  }
};
template <int kM, int kN, int kWarps>
struct TileProduct<bf16, kM, kN, kWarps> : TensorTileProduct<bf16, kM, kN, kWarps> {};
template <int kM, int kN, int kWarps>
struct TileProduct<fp16, kM, kN, kWarps> : TensorTileProduct<fp16, kM, kN, kWarps> {};

}  // namespace seq2seq_ext::kernels::cuda
