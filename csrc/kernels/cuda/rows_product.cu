// SPDX-License-Identifier: MIT
#include "cuda/rows_product.h"
#include "cuda/rows_tile.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    rows_product_kernel(const __grid_constant__ RowsProductParams p, int64_t batch_tiles) {
  using Acc = AccOf<T>;
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  Tile tile(carver);
  const int64_t n = first_weight_row<Tile>(batch_tiles), b = first_batch_row<Tile>(batch_tiles);
  const auto w_row = [&](int i) -> const T* {
    return n + i < p.N ? static_cast<const T*>(p.w) + (n + i) * p.K : nullptr;
  };
  const auto x_row = [&](int i) -> const T* {
    return b + i < p.B ? static_cast<const T*>(p.x) + (b + i) * p.x_stride_b : nullptr;
  };

  Acc acc[Tile::kRows][Tile::kCols] = {};
  if (p.bias != nullptr && Tile::Shape::split() == 0) {
    for (int r = 0; r < Tile::kRows; ++r) {
      const int64_t at = n + Tile::row(r);
      const Acc bias = at < p.N ? to_acc(static_cast<const T*>(p.bias)[at]) : Acc(0);
      for (int c = 0; c < Tile::kCols; ++c) acc[r][c] = bias;
    }
  }
  const bool aligned = rows_aligned<T>(p.w, p.K, p.K) && rows_aligned<T>(p.x, p.x_stride_b, p.K);
  tile.run(w_row, x_row, p.K, aligned, acc);

  Acc share[Tile::kRows][Tile::kShare];
  tile.reduce(acc, share);
  if (!Tile::owns_share()) return;
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
    for (int c = 0; c < Tile::kShare; ++c) {
      const int64_t column = n + Tile::row(r), row = b + Tile::share_col(c);
      if (column >= p.N || row >= p.B) continue;
      const int64_t at = row * p.y_stride_b + column;
      if (p.wide) {
        static_cast<Acc*>(p.y)[at] = share[r][c];
      } else {
        static_cast<T*>(p.y)[at] = from_acc<T>(share[r][c]);
      }
    }
  }
}

template <class T, int kM, int kN>
Status run(const RowsProductParams& p, const Runtime& runtime) {
  using Tile = RowsTile<T, kM, kN>;
  return launch_rows<Tile>("rows_product", rows_product_kernel<T, Tile>, p, p.N, p.B, runtime);
}

}  // namespace

Status rows_product(const RowsProductParams& p, const Runtime& runtime) {
  if (p.B == 0 || p.N == 0) return Status::ok();
  return dispatch_dtype(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (p.B <= 8) return run<T, 16, 8>(p, runtime);
    if constexpr (sizeof(T) == 2) {
      if (p.B > 32) return run<T, 64, 64>(p, runtime);
    }
    return run<T, 32, 32>(p, runtime);
  });
}

}  // namespace seq2seq_ext::kernels::cuda
