// SPDX-License-Identifier: MIT
// Cooperative groups: the part that kernels use.
#pragma once

#include "host_execution/warp.h"

namespace cooperative_groups {

struct grid_group {
  void sync(hx::Place at = HX_HERE) const { hx::grid_barrier(at); }
  unsigned num_blocks() const { return gridDim.x * gridDim.y * gridDim.z; }
  unsigned block_rank() const {
    return (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  }
};
inline grid_group this_grid() { return {}; }

struct thread_block {
  void sync(hx::Place at = HX_HERE) const { __syncthreads(at); }
  unsigned thread_rank() const { return hx::current->rank; }
  unsigned size() const { return blockDim.x * blockDim.y * blockDim.z; }
};
inline thread_block this_thread_block() { return {}; }

template <unsigned N>
struct thread_block_tile {
  static_assert(N <= 32 && (N & (N - 1)) == 0);

  static constexpr unsigned size() { return N; }
  unsigned thread_rank() const { return hx::current->lane % N; }
  unsigned meta_group_rank() const { return hx::current->rank / N; }

  void sync(hx::Place at = HX_HERE) const { __syncwarp(mask(), at); }
  template <class T>
  T shfl(T value, int source, hx::Place at = HX_HERE) const {
    return __shfl_sync(mask(), value, source, N, at);
  }
  template <class T>
  T shfl_xor(T value, int lanes, hx::Place at = HX_HERE) const {
    return __shfl_xor_sync(mask(), value, lanes, N, at);
  }
  template <class T>
  T shfl_up(T value, unsigned delta, hx::Place at = HX_HERE) const {
    return __shfl_up_sync(mask(), value, delta, N, at);
  }
  template <class T>
  T shfl_down(T value, unsigned delta, hx::Place at = HX_HERE) const {
    return __shfl_down_sync(mask(), value, delta, N, at);
  }
  int any(int p, hx::Place at = HX_HERE) const { return __any_sync(mask(), p, at); }
  int all(int p, hx::Place at = HX_HERE) const { return __all_sync(mask(), p, at); }
  unsigned ballot(int p, hx::Place at = HX_HERE) const {
    return __ballot_sync(mask(), p, at) >> first_lane();
  }

 private:
  static unsigned first_lane() { return hx::current->lane / N * N; }
  static unsigned mask() { return (N == 32 ? ~0u : (1u << N) - 1) << first_lane(); }
};
template <unsigned N>
thread_block_tile<N> tiled_partition(const thread_block&) {
  return {};
}

}  // namespace cooperative_groups
