// SPDX-License-Identifier: MIT
#include "cuda/math.cuh"
#include "cuda/reduce.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kColumns = 64, kLanes = 4;  // of a block: lanes share the rows of its part
constexpr int64_t kMinPartRows = 256, kMaxParts = 256;
constexpr int kChains = 4;  // sums a thread keeps: more loads in flight, shorter sums

// partial[part][column] = the column's sum over rows [part * part_rows, ...).
template <class T>
__global__ void __launch_bounds__(kColumns* kLanes)
    part_sums(const T* data, int64_t rows, int64_t columns, int64_t part_rows, AccOf<T>* partial) {
  using Acc = AccOf<T>;
  GPU_SHARED(Acc, sums, [kLanes][kColumns]);
  const int lane = threadIdx.x / kColumns, c = threadIdx.x % kColumns;
  const int64_t column = int64_t(blockIdx.x) * kColumns + c;
  const int64_t begin = int64_t(blockIdx.y) * part_rows;
  const int64_t end = begin + part_rows < rows ? begin + part_rows : rows;
  Acc chain[kChains] = {};
  if (column < columns) {
    const T* from = data + column;
    int64_t row = begin + lane;
    for (; row + (kChains - 1) * kLanes < end; row += kChains * kLanes) {
#pragma unroll
      for (int i = 0; i < kChains; ++i) chain[i] += to_acc(from[(row + i * kLanes) * columns]);
    }
#pragma unroll
    for (int i = 0; i < kChains; ++i) {
      if (row + i * kLanes < end) chain[i] += to_acc(from[(row + i * kLanes) * columns]);
    }
  }
  sums[lane][c] = (chain[0] + chain[1]) + (chain[2] + chain[3]);
  __syncthreads();
  if (lane != 0 || column >= columns) return;
  Acc sum = sums[0][c];
#pragma unroll
  for (int i = 1; i < kLanes; ++i) sum += sums[i][c];
  partial[blockIdx.y * columns + column] = sum;
}

// Slots of d_gates are rows of both biases in order, but for cells that split (first_hidden == 1),
// for the GRU: n, r, z of the input side, of which r and z are the hidden side's as well, then n of
// the hidden side.
template <class T>
__global__ void __launch_bounds__(256)
    finish_biases(const AccOf<T>* partial, int64_t parts, int64_t H, int slots, int first_hidden,
                  T* b_ih, T* b_hh) {
  const int64_t column = int64_t(blockIdx.x) * 256 + threadIdx.x, columns = slots * H;
  if (column >= columns) return;
  AccOf<T> sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partial[part * columns + column];
  const int64_t slot = column / H, gates = slots - first_hidden;
  if (b_ih != nullptr && slot < gates) {
    b_ih[column + (first_hidden == 0 ? 0 : slot == 0 ? (gates - 1) * H : -H)] = from_acc<T>(sum);
  }
  if (b_hh != nullptr && slot >= first_hidden) b_hh[column - first_hidden * H] = from_acc<T>(sum);
}

}  // namespace

void bias_gradients(Queue& queue, Cell cell, DType dtype, const void* d_gates, int64_t rows,
                    int64_t H, void* b_ih, void* b_hh) {
  if (b_ih == nullptr && b_hh == nullptr) return;
  const int64_t slots = num_saved(cell), columns = slots * H;
  int64_t parts = (rows + kMinPartRows - 1) / kMinPartRows;
  if (parts > kMaxParts) parts = kMaxParts;
  void* const partial = queue.allocate(parts * columns, sum_type(dtype));
  dispatch_dtype(dtype, [&](auto tag) {
    using T = decltype(tag);
    using Acc = AccOf<T>;
    queue.launch("part_sums", part_sums<T>, dim3(blocks_of(columns, kColumns), unsigned(parts)),
                 kColumns * kLanes, static_cast<const T*>(d_gates), rows, columns,
                 (rows + parts - 1) / parts, static_cast<Acc*>(partial));
    queue.launch("finish_biases", finish_biases<T>, dim3(blocks_of(columns, 256)), 256,
                 static_cast<const Acc*>(partial), parts, H, int(slots),
                 int(slots - num_gates(cell)), static_cast<T*>(b_ih), static_cast<T*>(b_hh));
  });
}

}  // namespace seq2seq_ext::kernels::cuda
