// SPDX-License-Identifier: MIT
// What the persistent recurrent kernels share. One cooperative launch runs a chunk of steps. The
// batch is cut into groups of rows that never wait for each other; the blocks of a group share out
// the hidden units, keep their slice of the recurrent weights (A fragments in registers, what does
// not fit in shared memory) and exchange what each step makes through L2.
//
// Product: M = a block's weight rows, N = batch rows (16 at a time), K = the exchanged values. The
// block's warps cut K, so that every exchanged value is loaded once per block, from L2 straight
// into the registers of the warp that multiplies it, which has waited for the makers of its own
// slice only. The warps' partial sums meet in shared memory and are added in the order of warps.
// A row's sums have one fixed order, whatever the batch.
//
// Registers of a fragment may hold any 16 values of K, if both operands agree. Here lane (g, t)
// takes values 8 t ... 8 t + 7 of a "K block" of 32 with one 16-byte load: words 0 and 1 are its
// part of one m16n8k16 product, words 2 and 3 of a second.
#pragma once

#include "cuda/math.cuh"
#include "cuda/persistent_launch.h"

namespace seq2seq_ext::kernels::cuda::persistent {

// A block's place in it.
struct Place {
  int index, direction, unit_block;  // of the group, of the block in it
  int first_row;
  int rows;          // of the batch; all others of batch_tile are padding
  int column_tiles;  // of eight rows that hold any
  int passes;        // of up to 16 rows
  // Steps of the chunk in which any of the rows is active.
  int first, last;

  __device__ Place(const Group& group, const bool (&reverse)[kMaxDirections]) {
    index = int(blockIdx.x) / group.unit_blocks;
    unit_block = int(blockIdx.x) % group.unit_blocks;
    direction = index / group.batch_blocks;
    first_row = index % group.batch_blocks * group.batch_tile;
    const int left = group.B - first_row;
    rows = left < group.batch_tile ? left : group.batch_tile;
    column_tiles = (rows + 7) / 8;
    passes = (column_tiles + 1) / 2;

    int longest = 0;
    for (int r = 0; r < rows; ++r) {
      const int length = row_length(group, first_row + r);
      longest = length > longest ? length : longest;
    }
    const bool backwards = direction == 0 ? reverse[0] : reverse[1];
    first = backwards ? group.T - longest : 0;
    last = backwards ? group.T : longest;
    first = first < group.begin ? group.begin : first > group.end ? group.end : first;
    last = last > group.end ? group.end : last < first ? first : last;
  }

  __device__ static int row_length(const Group& group, int row) {
    if (group.lengths == nullptr) return group.T;
    const int64_t length = group.lengths[row];
    return length < 0 ? 0 : length > group.T ? group.T : int(length);
  }

  // The group's buffers and counters, where there are any.
  __device__ uint4* exchange(const Group& group) const {
    return group.exchange + int64_t(index) * 2 * group.k_blocks * 4 * group.batch_tile;
  }
  __device__ unsigned* flags(const Group& group) const {
    return group.flags + int64_t(index) * group.flag_stride;
  }
};

// Which of two buffers, of `values` each, is written at a turn; it is read at the next.
__device__ inline uint4* written_at(int turn, uint4* buffers, int values) {
  return buffers + (turn + 1) % 2 * values;
}
__device__ inline const uint4* read_at(int turn, const uint4* buffers, int values) {
  return buffers + turn % 2 * values;
}

// Value k of batch row n in a buffer of `rows` rows.
template <class T>
__device__ inline T* exchanged(uint4* buffer, int rows, int k, int n) {
  return reinterpret_cast<T*>(buffer + (k / 8 * rows + n)) + k % 8;
}

template <class T>
__device__ inline uint4 packed(const T (&values)[8]) {
  uint4 words;
  memcpy(&words, values, sizeof(words));
  return words;
}

// Elements k ... k + 7 of a row of `length`, zero behind its end.
template <class T>
__device__ inline uint4 eight_values(const T* row, int k, int length) {
  if (k + 8 <= length && reinterpret_cast<uintptr_t>(row + k) % 16 == 0) {
    return *reinterpret_cast<const uint4*>(row + k);
  }
  T values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = k + i < length ? row[k + i] : from_acc<T>(0.f);
  return packed(values);
}

// Rows g and g + 8 of a tile of weights as the A fragments of the two products of a K block, for a
// lane (g, t). source(i, k): values k ... k + 7 of row i * 8 + g.
template <class Source>
__device__ __forceinline__ void load_fragments(const Source& source, int tile, int k_block,
                                               uint32_t (&first)[4], uint32_t (&second)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint4 words = source(2 * tile + half, k_block * 32 + int(threadIdx.x) % 4 * 8);
    first[half] = words.x;
    first[2 + half] = words.y;
    second[half] = words.z;
    second[2 + half] = words.w;
  }
}

// sums += W X^T over a K block: all tiles, kColumns times eight batch rows.
template <class T, int kColumns, int kTiles, int kAllColumns>
__device__ __forceinline__ void multiply(const uint32_t (&weights)[2][kTiles][4],
                                         const uint4* values,
                                         float (&sums)[kTiles][kAllColumns][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const uint4& x = values[c];
        const uint32_t b[2] = {half == 0 ? x.x : x.z, half == 0 ? x.y : x.w};
        gpu::mma_m16n8k16(sums[tile][c], weights[half][tile], b, T{});
      }
    }
  }
}

// Sums of G values for each (unit, batch row) of a tile, in shared memory, in slots of one for each
// warp: from the fragments of a product to where a thread has one unit.
template <int G, int kUnits, int kColumns>
class Partials {
 public:
  using Vector = std::conditional_t<G == 1, float, float4>;
  static constexpr int kOne = partial_vectors(G, kUnits, 8 * kColumns);  // of a slot

  __device__ explicit Partials(Vector* memory) : memory_(memory) {}

  // Thread (g, t) of a warp holds elements [i / 2][column][i % 2 * 2 + parity]: gate i % G of unit
  // 8 (i / G) + g, batch row 8 column + 2 t + parity.
  template <class Sums>
  __device__ __forceinline__ void put(int slot, const Sums& sums, int columns) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
    Vector* to = memory_ + slot * kOne;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      if (column >= columns) break;
#pragma unroll
      for (int set = 0; set < kUnits / 8; ++set) {
#pragma unroll
        for (int parity = 0; parity < 2; ++parity) {
          float values[4] = {};
#pragma unroll
          for (int gate = 0; gate < G; ++gate) {
            const int i = set * G + gate;
            values[gate] = sums[i / 2][column][i % 2 * 2 + parity];
          }
          Vector& entry = to[at(set * 8 + g, column * 8 + 2 * t + parity)];
          if constexpr (G == 1) {
            entry = values[0];
          } else {
            entry = make_float4(values[0], values[1], values[2], values[3]);
          }
        }
      }
    }
  }

  // The sums over `count` (at most kWarps) slots, in their order.
  __device__ __forceinline__ void get(int slot, int count, int unit, int row,
                                      float (&sums)[G]) const {
    const Vector* from = memory_ + slot * kOne + at(unit, row);
#pragma unroll
    for (int gate = 0; gate < G; ++gate) sums[gate] = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      if (i >= count) break;
      const Vector value = from[i * kOne];
      if constexpr (G == 1) {
        sums[0] += value;
      } else {
        const float values[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
        for (int gate = 0; gate < G; ++gate) sums[gate] += values[gate];
      }
    }
  }

 private:
  // Strides that spread both a fragment's lanes (writing) and consecutive units (reading) over the
  // banks.
  __device__ static int at(int unit, int row) {
    return G == 1 ? row * (kUnits + 4) + unit : unit * (8 * kColumns + 1) + row;
  }

  Vector* const memory_;
};

}  // namespace seq2seq_ext::kernels::cuda::persistent
