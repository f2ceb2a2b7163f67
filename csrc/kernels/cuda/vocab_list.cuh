// SPDX-License-Identifier: MIT
// The best K of a stream of words, kept by a warp in registers.
#pragma once

#include "cuda/softmax.cuh"

namespace seq2seq_ext::kernels::cuda {

constexpr int kMaxList = 64;

// The order of words: larger values first, of equals the lower index first. A NaN comes before
// nothing.
template <class A>
__device__ inline bool comes_first(A value, int index, A other_value, int other_index) {
  return value > other_value || (value == other_value && index < other_index);
}

// K <= kMaxList words in order; lane l has places l and l + 32. The result does not depend on the
// order in which words come.
template <class A>
class WarpList {
 public:
  // Places without a word hold one that comes last.
  __device__ explicit WarpList(int K) : K_(K) {
    for (int half = 0; half < 2; ++half) {
      values_[half] = minus_infinity<A>();
      indices_[half] = INT32_MAX;
    }
    find_worst();
  }

  __device__ WarpList(int K, const A* values, const int* indices) : K_(K) {
    for (int half = 0; half < 2; ++half) {
      values_[half] = values[lane() + 32 * half];
      indices_[half] = indices[lane() + 32 * half];
    }
    find_worst();
  }

  __device__ void store(A* values, int* indices) const {
    for (int half = 0; half < 2; ++half) {
      values[lane() + 32 * half] = values_[half];
      indices[lane() + 32 * half] = indices_[half];
    }
  }

  // Takes a word from every lane that has one.
  __device__ void add(A value, int index, bool valid) {
    const bool wanted = valid && comes_first(value, index, worst_value_, worst_index_);
    unsigned waiting = __ballot_sync(kAllLanes, wanted);
    while (waiting != 0) {
      const int from = __ffs(int(waiting)) - 1;
      waiting &= waiting - 1;
      const A new_value = __shfl_sync(kAllLanes, value, from);
      const int new_index = __shfl_sync(kAllLanes, index, from);
      if (comes_first(new_value, new_index, worst_value_, worst_index_)) {
        insert(new_value, new_index);
      }
    }
  }

  __device__ A value(int half) const { return values_[half]; }
  __device__ int index(int half) const { return indices_[half]; }

 private:
  __device__ static int lane() { return int(threadIdx.x) % 32; }

  __device__ void find_worst() {
    const int half = (K_ - 1) / 32, from = (K_ - 1) % 32;
    worst_value_ = __shfl_sync(kAllLanes, half == 0 ? values_[0] : values_[1], from);
    worst_index_ = __shfl_sync(kAllLanes, half == 0 ? indices_[0] : indices_[1], from);
  }

  __device__ void insert(A value, int index) {
    int place = 0;  // how many come before it
    for (int half = 0; half < 2; ++half) {
      const bool before = comes_first(values_[half], indices_[half], value, index);
      place += __popc(__ballot_sync(kAllLanes, before));
    }
    const A carry_value = __shfl_sync(kAllLanes, values_[0], 31);
    const int carry_index = __shfl_sync(kAllLanes, indices_[0], 31);
    for (int half = 0; half < 2; ++half) {
      A left_value = __shfl_up_sync(kAllLanes, values_[half], 1);
      int left_index = __shfl_up_sync(kAllLanes, indices_[half], 1);
      if (half == 1 && lane() == 0) left_value = carry_value, left_index = carry_index;
      const int at = lane() + 32 * half;
      if (at > place) values_[half] = left_value, indices_[half] = left_index;
      if (at == place) values_[half] = value, indices_[half] = index;
    }
    find_worst();
  }

  int K_;
  A values_[2];
  int indices_[2];
  A worst_value_;  // of place K - 1: what a word must come before to be kept
  int worst_index_;
};

}  // namespace seq2seq_ext::kernels::cuda
