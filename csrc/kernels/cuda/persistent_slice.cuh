// SPDX-License-Identifier: MIT
// Where several blocks share the units: what a warp waits for and multiplies, what it
// publishes. (persistent.cuh has the idea.)
#pragma once

#include "cuda/persistent.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

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
          load_fragments(source, tile, first + i, weights_[i][0][tile], weights_[i][1][tile]);
        }
      }
    }
    spill_ = spill + warp * group.spilled * 2 * kTiles * 32 + lane;
    for (int i = resident_; i < count; ++i) {
      for (int tile = 0; tile < kTiles; ++tile) {
        uint32_t a[2][4];
        load_fragments(source, tile, first + i, a[0], a[1]);
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
    from_ = read_at(turn, exchange_, buffer_step_) + row;
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
        multiply<T, kColumns>(weights_[i], values_ + i % kAhead * kColumns, sums);
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
          multiply<T, kColumns>(a, values_ + j * kColumns, sums);
          if (i + j + kAhead < count) fetch<kColumns>(j, i + j + kAhead);
        }
      }
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

  uint32_t weights_[kResident][2][kTiles][4];
  uint4 values_[kSlots];
  const uint4 *exchange_, *from_;
  uint4* spill_;
  int resident_, row_step_, buffer_step_;
};

}  // namespace seq2seq_ext::kernels::cuda::persistent
