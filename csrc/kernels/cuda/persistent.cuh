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
  int direction, unit_block;
  int first_row;
  int rows;          // of the batch; all others of batch_tile are padding
  int column_tiles;  // of eight rows that hold any
  int passes;        // of up to 16 rows
  // Steps of the chunk in which any of the rows is active.
  int first, last;
  uint4* exchange;
  unsigned* flags;

  __device__ Place(const Group& group, const bool (&reverse)[kMaxDirections]) {
    const int index = int(blockIdx.x) / group.unit_blocks;
    unit_block = int(blockIdx.x) % group.unit_blocks;
    direction = index / group.batch_blocks;
    first_row = index % group.batch_blocks * group.batch_tile;
    const int left = group.B - first_row;
    rows = left < group.batch_tile ? left : group.batch_tile;
    column_tiles = (rows + 7) / 8;
    passes = (column_tiles + 1) / 2;
    exchange = group.exchange + int64_t(index) * 2 * group.k_blocks * 4 * group.batch_tile;
    flags = group.flags + int64_t(index) * group.flag_stride;

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

  // What the blocks make at this turn; they read it at the next.
  __device__ uint4* buffer(const Group& group, int turn) const {
    return exchange + (turn + 1) % 2 * group.k_blocks * 4 * group.batch_tile;
  }
};

// Where value k of batch row n lies in a buffer.
template <class T>
__device__ inline T* exchanged(uint4* buffer, const Group& group, int k, int n) {
  return reinterpret_cast<T*>(buffer + (k / 8 * group.batch_tile + n)) + k % 8;
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

// A warp returns when blocks [first, last] of its group have each published `count` times.
__device__ inline void wait_for(const unsigned* flags, int first, int last, unsigned count) {
  for (int block = first + int(threadIdx.x) % 32; block <= last; block += 32) {
    while (int(gpu::ld_acquire(flags + block) - count) < 0) gpu::spin_wait();
  }
  __syncwarp();  // what one lane has seen, all may read
}

// One warp's stores so far become visible to those who wait for this block.
__device__ inline void publish(unsigned* flag) {
  __syncwarp();  // the release covers the other lanes' stores
  if (threadIdx.x % 32 == 0) gpu::red_release(flag, 1);
}

// A warp's slice of the product: its weights and its K blocks.
template <class T, int kTiles, int kResident>
class Slice {
  // K blocks whose values are under way at a time, for one and for two columns: what covers the
  // latency of L2, in the same registers.
  static constexpr int kSlots = 8;
  template <int kColumns>
  static constexpr int kDepth = kResident < kSlots / kColumns ? kResident : kSlots / kColumns;
  static_assert(kResident % kDepth<1> == 0 && kResident % kDepth<2> == 0);

 public:
  using Sums = float[kTiles][2][4];  // [16 rows of W][8 batch rows][element of the fragment]

  // source(i, k8): eight values of W, number k8 ... k8 + 7 of K, of row i * 8 + g of the block.
  // `spill`: shared memory for what does not stay in registers.
  template <class Source>
  __device__ __forceinline__ Slice(const Group& group, const uint4* exchange, uint4* spill,
                                   const Source& source) {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    first = warp * group.warp_k_blocks;
    count = group.k_blocks - first;
    count = count < 0 ? 0 : count < group.warp_k_blocks ? count : group.warp_k_blocks;
    resident_ = group.resident < count ? group.resident : count;
    row_step_ = group.batch_tile;
    buffer_step_ = group.k_blocks * 4 * row_step_;
    exchange_ = exchange + (first * 4 + lane % 4) * row_step_ + lane / 4;
#pragma unroll
    for (int i = 0; i < kResident; ++i) {
      if (i < resident_) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          load(source, tile, i, weights_[i][0][tile], weights_[i][1][tile]);
        }
      }
    }
    spill_ = spill + warp * group.spilled * 2 * kTiles * 32 + lane;
    for (int i = resident_; i < count; ++i) {
      for (int tile = 0; tile < kTiles; ++tile) {
        uint32_t a[2][4];
        load(source, tile, i, a[0], a[1]);
        for (int half = 0; half < 2; ++half) {
          spilled(i, half, tile) = make_uint4(a[half][0], a[half][1], a[half][2], a[half][3]);
        }
      }
    }
  }

  int first, count;  // K blocks of this warp

  __device__ static int spilled_vectors(const Group& group) {
    return kWarps * group.spilled * 2 * kTiles * 32;
  }

  // Begins to load the first values of `columns` (1 or 2) times eight batch rows from `row` on, of
  // what was made at turn - 1.
  __device__ __forceinline__ void start(int turn, int row, int columns) {
    from_ = exchange_ + turn % 2 * buffer_step_ + row;
    if (columns == 2) {
      start<2>();
    } else {
      start<1>();
    }
  }

  // sums += W X^T over the slice; start() has been called with the same `columns`.
  __device__ __forceinline__ void run(int columns, Sums& sums) {
    if (columns == 2) {
      run<2>(sums);
    } else {
      run<1>(sums);
    }
  }

 private:
  template <int kColumns>
  __device__ __forceinline__ void start() {
#pragma unroll
    for (int i = 0; i < kDepth<kColumns>; ++i) {
      if (i < count) fetch<kColumns>(i, i);
    }
  }

  template <int kColumns>
  __device__ __forceinline__ void run(Sums& sums) {
    constexpr int kAhead = kDepth<kColumns>;
#pragma unroll
    for (int i = 0; i < kResident; ++i) {
      if (i < resident_) {
        multiply<kColumns>(i % kAhead, weights_[i], sums);
        if (i + kAhead < count) fetch<kColumns>(i % kAhead, i + kAhead);
      }
    }
#pragma unroll 1
    for (int i = resident_; i < count; i += kAhead) {
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (i + j < count) {
          uint32_t a[2][kTiles][4];
          load_spilled(i + j, a);
          multiply<kColumns>(j, a, sums);
          if (i + j + kAhead < count) fetch<kColumns>(j, i + j + kAhead);
        }
      }
    }
  }

  // Rows g and g + 8 of a tile, of both products of a K block.
  template <class Source>
  __device__ __forceinline__ void load(const Source& source, int tile, int i, uint32_t (&a)[4],
                                       uint32_t (&b)[4]) const {
    const int k = (first + i) * 32 + int(threadIdx.x) % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 words = source(2 * tile + half, k);
      a[half] = words.x;
      a[2 + half] = words.y;
      b[half] = words.z;
      b[2 + half] = words.w;
    }
  }

  __device__ __forceinline__ uint4& spilled(int i, int half, int tile) {
    return spill_[(((i - resident_) * 2 + half) * kTiles + tile) * 32];
  }

  __device__ __forceinline__ void load_spilled(int i, uint32_t (&a)[2][kTiles][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 words = spilled(i, half, tile);
        a[half][tile][0] = words.x;
        a[half][tile][1] = words.y;
        a[half][tile][2] = words.z;
        a[half][tile][3] = words.w;
      }
    }
  }

  // K block i's values are in slots i % kDepth * kColumns and following.
  template <int kColumns>
  __device__ __forceinline__ void fetch(int slot, int i) {
    const uint4* from = from_ + i * 4 * row_step_;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      values_[slot * kColumns + c] = __ldcg(from + 8 * c);  // others write it: never from L1
    }
  }

  template <int kColumns>
  __device__ __forceinline__ void multiply(int slot, const uint32_t (&a)[2][kTiles][4],
                                           Sums& sums) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const uint4& x = values_[slot * kColumns + c];
          const uint32_t b[2] = {half == 0 ? x.x : x.z, half == 0 ? x.y : x.w};
          gpu::mma_m16n8k16(sums[tile][c], a[half][tile], b, T{});
        }
      }
    }
  }

  uint32_t weights_[kResident][2][kTiles][4];
  uint4 values_[kSlots];
  const uint4 *exchange_, *from_;
  uint4* spill_;
  int resident_, row_step_, buffer_step_;
};

// The warps' partial sums of one pass, of G values for each (unit, batch row), in shared memory.
// Two buffers in turn: one barrier between put() and get() is then enough, since who writes a
// buffer again has passed the next barrier, before which all had read it.
template <int G, int kUnits>
class Partials {
 public:
  using Vector = std::conditional_t<G == 1, float, float4>;

  static constexpr size_t kVectors = size_t(2) * kWarps * partial_vectors(G, kUnits);

  __device__ explicit Partials(Vector* memory) : memory_(memory) {}

  // Thread (g, t) of a warp holds elements [i / 2][column tile][i % 2 * 2 + parity]: gate i % G of
  // unit 8 (i / G) + g, batch rows 8 (column tile) + 2 t + parity.
  template <class Sums>
  __device__ __forceinline__ void put(int turn, const Sums& sums, int columns) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
    Vector* to = memory_ + ((turn & 1) * kWarps + int(threadIdx.x) / 32) * kOne;
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      if (column >= columns) break;
#pragma unroll
      for (int octet = 0; octet < kUnits / 8; ++octet) {
#pragma unroll
        for (int parity = 0; parity < 2; ++parity) {
          float values[4] = {};
#pragma unroll
          for (int gate = 0; gate < G; ++gate) {
            const int i = octet * G + gate;
            values[gate] = sums[i / 2][column][i % 2 * 2 + parity];
          }
          Vector& slot = to[at(octet * 8 + g, column * 8 + 2 * t + parity)];
          if constexpr (G == 1) {
            slot = values[0];
          } else {
            slot = make_float4(values[0], values[1], values[2], values[3]);
          }
        }
      }
    }
  }

  // The sums over `warps` warps.
  __device__ __forceinline__ void get(int turn, int unit, int row, int warps,
                                      float (&sums)[G]) const {
    const Vector* from = memory_ + (turn & 1) * kWarps * kOne + at(unit, row);
#pragma unroll
    for (int gate = 0; gate < G; ++gate) sums[gate] = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      if (warp >= warps) break;
      const Vector value = from[warp * kOne];
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
    return G == 1 ? row * (kUnits + 4) + unit : unit * (kPassRows + 1) + row;
  }
  static constexpr int kOne = partial_vectors(G, kUnits);

  Vector* const memory_;
};

}  // namespace seq2seq_ext::kernels::cuda::persistent
