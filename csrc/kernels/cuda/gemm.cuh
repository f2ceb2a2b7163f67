// SPDX-License-Identifier: MIT
// The large product c = a b: square tiles, operands of any orientation, one order of summation.
#pragma once

#include "cuda/gemm.h"
#include "cuda/product_tile.cuh"

namespace seq2seq_ext::kernels::cuda {

// Copies an operand's tiles. kTile rows of it, from `first_row` on.
template <class T, int kTile, int kThreads, bool kAcross>
struct OperandSource {
  const GemmOperand& operand;
  int64_t first_row, rows;  // of the operand
  bool aligned;

  __device__ OperandSource(const GemmOperand& operand, int64_t first_row, int64_t rows)
      : operand(operand),
        first_row(first_row),
        rows(rows),
        aligned(reinterpret_cast<uintptr_t>(operand.data) % 16 == 0 &&
                operand.stride % kChunkK<T> == 0) {}

  // The tile of k .. end.
  __device__ void fill(Chunk<T>* tile, int64_t k, int64_t end) const {
    if constexpr (kAcross) {
      fill_lines<kTileK<T>, kTile / kChunkK<T>>(tile, k, end, first_row, rows);
    } else {
      fill_lines<kTile, kTileChunks>(tile, first_row, rows, k, end);
    }
  }

 private:
  // Lines from `line` on, of elements from `element` on; zeros past the ends.
  template <int kLines, int kLineChunks>
  __device__ void fill_lines(Chunk<T>* tile, int64_t line, int64_t line_end, int64_t element,
                             int64_t element_end) const {
    static_assert(kLines * kLineChunks % kThreads == 0 && kThreads % kLineChunks == 0);
    const int chunk = int(threadIdx.x) % kLineChunks, first = int(threadIdx.x) / kLineChunks;
    element += chunk * kChunkK<T>;
    const int count = int(min(max(element_end - element, int64_t(0)), int64_t(kChunkK<T>)));
    const T* from = static_cast<const T*>(operand.data) + (line + first) * operand.stride + element;
#pragma unroll 2
    for (int i = 0; i < kLines; i += kThreads / kLineChunks) {
      Chunk<T>* place = tile_chunk<T, kLineChunks>(tile, first + i, chunk);
      if (count == 0 || line + first + i >= line_end) {
        *place = Chunk<T>{};
      } else if (aligned) {
        gpu::cp_async16(place, from + i * operand.stride, unsigned(count * sizeof(T)));
      } else {
        copy_chunk(place, from + i * operand.stride, count);
      }
    }
  }
};

// Tile number `index` of m x n tiles: eight rows of tiles at a time, down the columns, so that
// blocks at work together read few different rows of a and b.
__device__ inline void place_tile(int64_t index, int64_t m_tiles, int64_t n_tiles, int64_t& m,
                                  int64_t& n) {
  constexpr int64_t kTogether = 8;
  const int64_t group = index / (kTogether * n_tiles), within = index % (kTogether * n_tiles);
  const int64_t rows = min(m_tiles - group * kTogether, kTogether);
  m = group * kTogether + within % rows;
  n = within / rows;
}

template <class T, int kTile_, bool kAcrossA, bool kAcrossB>
struct GemmBlock {
  using Acc = AccOf<T>;
  static constexpr int kTile = kTile_, kWarps = 4, kThreads = 32 * kWarps, kStages = 3;
  using Shape = TileShape<kTile, kTile, kWarps, 1>;
  using AView = std::conditional_t<kAcrossA, ColumnsView<T, kTile>, RowsView<T>>;
  using BView = std::conditional_t<kAcrossB, ColumnsView<T, kTile>, RowsView<T>>;
  static constexpr int kStageChunks = 2 * kTile * kTileChunks;
  static constexpr int kSumsStride = kTile + 8;  // of the sums in shared memory: no bank conflicts
  static constexpr size_t kSharedBytes = kStages * kStageChunks * 16;
  static_assert(kTile * kSumsStride * sizeof(Acc) <= kSharedBytes);

  // Sums of the tile over k .. end, into shared memory.
  __device__ static void multiply(const GemmLaunch& launch, int64_t m, int64_t n, int64_t k,
                                  int64_t end, Chunk<T>* memory) {
    const OperandSource<T, kTile, kThreads, kAcrossA> a(launch.a, m, launch.params.m);
    const OperandSource<T, kTile, kThreads, kAcrossB> b(launch.b, n, launch.params.n);
    Acc acc[Shape::kRows][Shape::kCols] = {};
    const int tiles = int((end - k + kTileK<T> - 1) / kTileK<T>);
    const auto fill = [&](int stage) {
      Chunk<T>* const tile = memory + stage * kStageChunks;
      if (k < end) {
        a.fill(tile, k, end);
        b.fill(tile + kTile * kTileChunks, k, end);
        k += kTileK<T>;
      }
      gpu::cp_async_commit();
    };
    TileRing<kStages> ring(fill);
    ring.consume(tiles, fill, [&](int stage) {
      const Chunk<T>* const tile = memory + stage * kStageChunks;
      TileProduct<T, Shape>::add(AView{tile}, BView{tile + kTile * kTileChunks}, acc);
    });
    __syncthreads();  // the tiles' memory becomes the sums'
    Acc* const sums = reinterpret_cast<Acc*>(memory);
#pragma unroll
    for (int r = 0; r < Shape::kRows; ++r) {
#pragma unroll
      for (int c = 0; c < Shape::kCols; ++c) {
        sums[Shape::row(r) * kSumsStride + Shape::col(c)] = acc[r][c];
      }
    }
    __syncthreads();
  }

  template <class C>
  __device__ static void store(const GemmParams& p, C* c, int64_t m, int64_t n, const Acc* sums) {
    for (int i = int(threadIdx.x); i < kTile * kTile; i += kThreads) {
      const int64_t row = m + i / kTile, column = n + i % kTile;
      if (row >= p.m || column >= p.n) continue;
      C& to = c[row * p.c_stride_m + column];
      const Acc sum = sums[i / kTile * kSumsStride + i % kTile];
      to = from_acc<C>(p.accumulate ? Acc(to_acc(to)) + sum : sum);
    }
  }
};

template <class T, class Block>
__global__ void __launch_bounds__(Block::kThreads)
    gemm_kernel(const __grid_constant__ GemmLaunch launch) {
  using Acc = AccOf<T>;
  const GemmParams& p = launch.params;
  GPU_DYN_SHARED(raw);
  gpu::Carver carver(raw);
  Chunk<T>* const memory = carver.take<Chunk<T>>(Block::kSharedBytes / 16, 128);
  const int64_t m_tiles = (p.m + Block::kTile - 1) / Block::kTile;
  const int64_t n_tiles = (p.n + Block::kTile - 1) / Block::kTile;
  const int64_t part = int64_t(blockIdx.x) / (m_tiles * n_tiles);
  int64_t m, n;
  place_tile(int64_t(blockIdx.x) % (m_tiles * n_tiles), m_tiles, n_tiles, m, n);
  m *= Block::kTile;
  n *= Block::kTile;

  const int64_t k = part * launch.part_k;
  Block::multiply(launch, m, n, k, min(p.k, k + launch.part_k), memory);
  const Acc* const sums = reinterpret_cast<const Acc*>(memory);
  const int64_t at = part * launch.part_stride;
  if (p.wide) {
    Block::store(p, static_cast<Acc*>(p.c) + at, m, n, sums);
  } else {
    Block::store(p, static_cast<T*>(p.c) + at, m, n, sums);
  }
}

template <class T, int kTile, bool kAcrossA, bool kAcrossB>
Status launch_gemm(const GemmLaunch& launch, void* stream) {
  using Block = GemmBlock<T, kTile, kAcrossA, kAcrossB>;
  const GemmParams& p = launch.params;
  const int64_t m_tiles = (p.m + kTile - 1) / kTile, n_tiles = (p.n + kTile - 1) / kTile;
  if (m_tiles > INT32_MAX / n_tiles / launch.parts) return Status::invalid("gemm: c is too large");
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>(m_tiles * n_tiles * launch.parts));
  config.block = dim3(Block::kThreads);
  config.smem = Block::kSharedBytes;
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error = GPU_LAUNCH(config, (gemm_kernel<T, Block>), launch);
  return error == cudaSuccess ? Status::ok() : Status::invalid(gpu::launch_failure("gemm", error));
}

template <class T>
Status gemm_blocks(const GemmLaunch& launch, void* stream) {
  constexpr int kTile = sizeof(T) == 2 ? 128 : 64;
  if (launch.a.across) {
    return launch.b.across ? launch_gemm<T, kTile, true, true>(launch, stream)
                           : launch_gemm<T, kTile, true, false>(launch, stream);
  }
  return launch.b.across ? launch_gemm<T, kTile, false, true>(launch, stream)
                         : launch_gemm<T, kTile, false, false>(launch, stream);
}

}  // namespace seq2seq_ext::kernels::cuda
