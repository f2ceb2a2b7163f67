// SPDX-License-Identifier: MIT
// Shuffles, votes, matches, reductions, tiles: whole warps, partial masks, lanes that left.
#include "layer_test.h"

namespace hx_test {
namespace {

// ---- Shuffles -----------------------------------------------------------------------------------

template <class T>
__global__ void shuffle_all(int kind, int by, int width, T* out) {
  const int t = threadIdx.x;
  const T own = T(100 + t);
  switch (kind) {
    case 0:
      out[t] = __shfl_sync(gpu::kAllLanes, own, by, width);
      break;
    case 1:
      out[t] = __shfl_up_sync(gpu::kAllLanes, own, by, width);
      break;
    case 2:
      out[t] = __shfl_down_sync(gpu::kAllLanes, own, by, width);
      break;
    default:
      out[t] = __shfl_xor_sync(gpu::kAllLanes, own, by, width);
  }
}

// As the CUDA guide words it.
int shuffle_source(int kind, int lane, int by, int width) {
  const int first = lane / width * width;
  switch (kind) {
    case 0:
      return first + by % width;
    case 1:
      return lane - by >= first ? lane - by : lane;
    case 2:
      return lane + by < first + width ? lane + by : lane;
    default:
      return (lane ^ by) < first + width ? lane ^ by : lane;  // earlier segments may be read
  }
}

template <class T>
void check_shuffles() {
  for (int kind = 0; kind < 4; ++kind) {
    for (const int width : {1, 2, 8, 16, 32}) {
      for (const int by : {0, 1, 3, 7, 16, 31}) {
        std::vector<T> out(64);
        GPU_LAUNCH(shape(1, 64), shuffle_all<T>, kind, by, width, out.data());
        bool right = true;
        for (int t = 0; t < 64; ++t) {
          right &= out[t] == T(100 + t / 32 * 32 + shuffle_source(kind, t % 32, by, width));
        }
        EXPECT(right);
      }
    }
  }
}

}  // namespace

LAYER_TEST(shuffles) {
  check_shuffles<int>();
  check_shuffles<double>();
  check_shuffles<unsigned long long>();
}

// ---- Partial masks ------------------------------------------------------------------------------

namespace {

// The halves of a warp go different ways and meet again.
__global__ void halves(int* out) {
  const int t = threadIdx.x, lane = t % 32;
  int got;
  if (lane < 16) {
    got = __shfl_xor_sync(0x0000ffffu, t, 3, 16);
    got += __shfl_down_sync(0x0000ffffu, t, 1, 16);
  } else {
    got = 1000 + __shfl_sync(0xffff0000u, t, 5, 16);
  }
  out[t] = 2 * got + (__any_sync(gpu::kAllLanes, lane == 17) != 0);
}

// Two groups of lanes, interleaved, make different numbers of steps.
__global__ void even_and_odd(int* out) {
  const int t = threadIdx.x;
  const bool odd = t % 2;
  const unsigned mask = odd ? 0xaaaaaaaau : 0x55555555u;
  int sum = 0;
  for (int step = 0; step < (odd ? 5 : 3); ++step) {
    sum += __shfl_sync(mask, t + step, odd ? 31 : 30);
    __syncwarp(mask);
  }
  out[t] = sum;
}

__global__ void single_lane(int* out) {
  const int t = threadIdx.x;
  if (t == 7) out[0] = __shfl_sync(1u << 7, 42, 7) + __popc(__ballot_sync(1u << 7, 1));
}

}  // namespace

LAYER_TEST(partial_masks) {
  std::vector<int> out(64);
  GPU_LAUNCH(shape(1, 64), halves, out.data());
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, first = t - lane;
    const int got = lane < 16 ? first + (lane ^ 3) + t + (lane < 15) : 1000 + first + 16 + 5;
    EXPECT(out[t] == 2 * got + 1);
  }
  GPU_LAUNCH(shape(1, 64), even_and_odd, out.data());
  for (int t = 0; t < 64; ++t) {
    const int source = t / 32 * 32 + (t % 2 ? 31 : 30);
    EXPECT(out[t] == (t % 2 ? 5 * source + 10 : 3 * source + 3));
  }
  GPU_LAUNCH(shape(1, 32), single_lane, out.data());
  EXPECT(out[0] == 43);
}

// ---- Lanes that left ----------------------------------------------------------------------------

namespace {

__global__ void early_exit(int* out) {
  const int t = threadIdx.x, lane = t % 32;
  out[t] = -1;
  if (lane % 5 == 4) return;
  // All lanes are named; those that left are not waited for.
  const unsigned there = __ballot_sync(gpu::kAllLanes, 1);
  const int sum = __reduce_add_sync(there, lane);
  __syncwarp();
  out[t] = int(there % 1000) * 1000 + sum;
}

__global__ void exit_while_others_wait(int* out) {
  const int t = threadIdx.x;
  if (t == 3) {
    for (int i = 0; i < 20; ++i) gpu::spin_wait();
    return;
  }
  out[t] = __popc(__ballot_sync(gpu::kAllLanes, 1));
}

}  // namespace

LAYER_TEST(warps_do_not_wait_for_lanes_that_left) {
  std::vector<int> out(64);
  GPU_LAUNCH(shape(1, 64), early_exit, out.data());
  unsigned there = 0;
  int sum = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (lane % 5 != 4) there |= 1u << lane, sum += lane;
  }
  for (int t = 0; t < 64; ++t) {
    EXPECT(out[t] == (t % 32 % 5 == 4 ? -1 : int(there % 1000) * 1000 + sum));
  }
  GPU_LAUNCH(shape(1, 32), exit_while_others_wait, out.data());
  for (int t = 0; t < 32; ++t) EXPECT(t == 3 || out[t] == 31);
}

LAYER_TEST(last_warp_of_a_block_may_be_short) {
  std::vector<int> out(45, -2);
  GPU_LAUNCH(shape(1, 45), early_exit, out.data());
  int sum = 0;
  for (int lane = 0; lane < 13; ++lane) sum += lane % 5 == 4 ? 0 : lane;
  EXPECT(out[32] % 1000 == sum);
}

// ---- Votes, matches, reductions -----------------------------------------------------------------

namespace {

struct Results {
  unsigned ballot, any, all, none_all, match, match_all, same;
  unsigned add, smallest, largest, ands, ors, xors;
  int signed_add, signed_min, signed_max;
  unsigned masks[4];
};

__global__ void votes(unsigned mask, Results* out) {
  const int lane = threadIdx.x;
  if (!(mask >> lane & 1)) return;
  Results r{};
  r.ballot = __ballot_sync(mask, lane % 3 == 0);
  r.any = __any_sync(mask, lane == 9) != 0;
  r.all = __all_sync(mask, lane < 32) != 0;
  r.none_all = __all_sync(mask, lane != 9) != 0;
  r.match = __match_any_sync(mask, lane / 4);
  int same = -1;
  r.match_all = __match_all_sync(mask, 5.5f, &same);
  r.same = unsigned(same);
  const unsigned v = 0xfff00000u + unsigned(lane) * 77777u;  // sums wrap
  r.add = __reduce_add_sync(mask, v);
  r.smallest = __reduce_min_sync(mask, v);
  r.largest = __reduce_max_sync(mask, v);
  r.ands = __reduce_and_sync(mask, v);
  r.ors = __reduce_or_sync(mask, v);
  r.xors = __reduce_xor_sync(mask, v);
  r.signed_add = __reduce_add_sync(mask, lane - 16);
  r.signed_min = __reduce_min_sync(mask, lane - 16);
  r.signed_max = __reduce_max_sync(mask, lane - 16);
  r.masks[0] = gpu::lane_mask_lt();
  r.masks[1] = gpu::lane_mask_le();
  r.masks[2] = gpu::lane_mask_gt();
  r.masks[3] = gpu::lane_mask_ge();
  out[lane] = r;
}

void check_votes(unsigned mask) {
  std::vector<Results> out(32);
  GPU_LAUNCH(shape(1, 32), votes, mask, out.data());
  Results e{};
  e.smallest = ~0u, e.ands = ~0u, e.signed_min = 99, e.signed_max = -99;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const unsigned v = 0xfff00000u + unsigned(lane) * 77777u;
    if (lane % 3 == 0) e.ballot |= 1u << lane;
    e.any |= lane == 9;
    e.add += v, e.ands &= v, e.ors |= v, e.xors ^= v;
    e.smallest = std::min(e.smallest, v), e.largest = std::max(e.largest, v);
    e.signed_add += lane - 16;
    e.signed_min = std::min(e.signed_min, lane - 16),
    e.signed_max = std::max(e.signed_max, lane - 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const Results& r = out[lane];
    EXPECT(r.ballot == e.ballot && r.any == e.any && r.all == 1 && r.none_all == !e.any);
    EXPECT(r.match == (mask & 0xfu << lane / 4 * 4) && r.match_all == mask && r.same == 1);
    EXPECT(r.add == e.add && r.smallest == e.smallest && r.largest == e.largest);
    EXPECT(r.ands == e.ands && r.ors == e.ors && r.xors == e.xors);
    EXPECT(r.signed_add == e.signed_add && r.signed_min == e.signed_min &&
           r.signed_max == e.signed_max);
    EXPECT(r.masks[0] == (1u << lane) - 1 && r.masks[1] == (2ull << lane) - 1);
    EXPECT(r.masks[2] == ~r.masks[1] && r.masks[3] == ~r.masks[0]);
  }
}

}  // namespace

LAYER_TEST(votes_matches_reductions) {
  check_votes(gpu::kAllLanes);
  check_votes(0x00ff0ff1u);
  check_votes(1u << 9);
}

// ---- Tiles --------------------------------------------------------------------------------------

namespace {

template <unsigned N>
__global__ void tiles(int* out) {
  namespace cg = cooperative_groups;
  const auto tile = cg::tiled_partition<N>(cg::this_thread_block());
  const int t = threadIdx.x;
  int sum = t;
  for (unsigned by = N / 2; by > 0; by /= 2) sum += tile.shfl_xor(sum, int(by));
  tile.sync();
  const int first = tile.shfl(t, 0);
  const int votes = int(tile.ballot(tile.thread_rank() == 0)) + tile.any(t == first);
  out[t] = sum * 1000 + first * 10 + votes;
}

template <unsigned N>
void check_tiles() {
  std::vector<int> out(64);
  GPU_LAUNCH(shape(1, 64), tiles<N>, out.data());
  for (int t = 0; t < 64; ++t) {
    const int first = t / int(N) * int(N), sum = int(N) * first + int(N * (N - 1)) / 2;
    EXPECT(out[t] == sum * 1000 + first * 10 + 2);
  }
}

}  // namespace

LAYER_TEST(tiles) {
  check_tiles<2>();
  check_tiles<4>();
  check_tiles<8>();
  check_tiles<16>();
  check_tiles<32>();
}

}  // namespace hx_test
