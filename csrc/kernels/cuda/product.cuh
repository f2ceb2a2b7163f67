// SPDX-License-Identifier: MIT
// A block computes one tile of W X^T: kM rows of the large operand W by kN rows of the narrow one X
// (batch rows), in tensor cores for 16-bit types, in plain fused multiply-adds for float and double.
//
// The sum over K runs in one fixed order, the same whatever kN is and wherever in the tile a row
// lies: a row's result does not depend on the other rows, bit for bit.
//
// Thread (warp w, lane 4 g + t) owns elements (row(r), col(c)):
//   row(r) = w * kM / kWarps + 8 r + g      col(c) = 8 (c / 2) + 2 t + c % 2
// so with rows of W handed out such that row 8 r + g of a warp is gate r of unit g, a thread holds
// all gates of its unit.
#pragma once

#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

template <class T, int kM_, int kN_, int kWarps_>
struct Product {
  using Acc = AccOf<T>;
  static constexpr int kM = kM_, kN = kN_, kWarps = kWarps_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpRows = kM / kWarps;
  static constexpr int kRows = kWarpRows / 8, kCols = kN / 4;  // of one thread
  static_assert(kM % (16 * kWarps) == 0 && kN % 8 == 0);

  // Dynamic shared memory that run() takes from the Carver.
  static constexpr size_t shared_bytes() { return 0; }

  __device__ explicit Product(gpu::Carver&) {}

  __device__ static int row(int r) {
    return int(threadIdx.x) / 32 * kWarpRows + 8 * r + int(threadIdx.x) % 32 / 4;
  }
  __device__ static int col(int c) { return 8 * (c / 2) + 2 * (int(threadIdx.x) % 4) + c % 2; }

  // acc[r][c] += sum over k < K of w_row(row(r))[k] * x_row(col(c))[k]. The functions map a row of
  // the tile to its address; null: a row of zeros. `aligned`: all rows start at multiples of 16
  // bytes and K is one of 16 / sizeof(T). All threads of the block call it; shared memory is free
  // again when it returns.
  template <class WRow, class XRow>
  __device__ void run(const WRow& w_row, const XRow& x_row, int64_t K, bool aligned,
                      Acc (&acc)[kRows][kCols]) {
    for (int r = 0; r < kRows; ++r) {
      const T* w = w_row(row(r));
      for (int c = 0; c < kCols; ++c) {
        const T* x = x_row(col(c));
        if (w == nullptr || x == nullptr) continue;
        Acc sum = 0;
        for (int64_t k = 0; k < K; ++k) sum += to_acc(w[k]) * to_acc(x[k]);
        acc[r][c] += sum;
      }
    }
  }
};

// Whether Product::run may be told that rows `stride` elements apart from `base` are aligned.
template <class T>
bool rows_aligned(const void* base, int64_t stride, int64_t K) {
  constexpr int64_t kPer16 = 16 / sizeof(T);
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && stride % kPer16 == 0 && K % kPer16 == 0;
}

}  // namespace seq2seq_ext::kernels::cuda
