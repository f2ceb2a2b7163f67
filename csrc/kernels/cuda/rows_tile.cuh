// SPDX-License-Identifier: MIT
// The tiles of the kernels that multiply few batch rows with many rows of weights. Four groups of
// warps share the work along k, whatever the tile, so all tiles give the same bits, and the choice
// is free to follow the batch and the device.
#pragma once

#include "common/status.h"
#include "cuda/product.cuh"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

template <class T, int kM, int kN>
using RowsTile = Product<T, kM, kN, kM <= 32 ? 1 : kM / 32, default_stages(kM + kN), 4>;

// Blocks of a kernel over ceil(M / kM) x ceil(B / kN) tiles, in one dimension, since the other two
// end at 65535. Tiles that share rows of weights are neighbours: they find them in the cache.
struct RowsGrid {
  int64_t batch_tiles, blocks;
  RowsGrid(int64_t M, int64_t B, int kM, int kN)
      : batch_tiles((B + kN - 1) / kN), blocks((M + kM - 1) / kM * batch_tiles) {}
};

// First row of weights and first batch row of this block's tile.
template <class Tile>
__device__ inline int64_t first_weight_row(int64_t batch_tiles) {
  return int64_t(blockIdx.x) / batch_tiles * Tile::kM;
}
template <class Tile>
__device__ inline int64_t first_batch_row(int64_t batch_tiles) {
  return int64_t(blockIdx.x) % batch_tiles * Tile::kN;
}

// Launches kernel(params, batch_tiles) over the tiles.
template <class Tile, class Params>
Status launch_rows(const char* name, void (*kernel)(Params, int64_t), const Params& params,
                   int64_t M, int64_t B, const Runtime& runtime) {
  const RowsGrid grid(M, B, Tile::kM, Tile::kN);
  if (grid.blocks > INT32_MAX) return Status::invalid(std::string(name) + ": too many rows");
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>(grid.blocks));
  config.block = dim3(Tile::kThreads);
  config.smem = Tile::shared_bytes();
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = gpu::launch(config, name, kernel, params, grid.batch_tiles);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure(name, error));
}

}  // namespace seq2seq_ext::kernels::cuda
