// SPDX-License-Identifier: MIT
// Blocks and grids: indices, barriers, named barriers, cooperative launches, schedules.
#include <numeric>

#include "layer_test.h"

namespace hx_test {

// ---- Indices ------------------------------------------------------------------------------------

namespace {

__global__ void count_indices(int* counts) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(&counts[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
}

}  // namespace

LAYER_TEST(every_thread_of_every_block_runs_once) {
  std::vector<int> counts(2 * 3 * 4 * 3 * 4 * 5, 0);
  GPU_LAUNCH(shape(dim3(2, 3, 4), dim3(3, 4, 5)), count_indices, counts.data());
  EXPECT(std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; }));
  EXPECT(hx::stats.threads == counts.size());
  EXPECT(hx::stats.most_alive == 3 * 3 * 4 * 5);  // Options::resident blocks
}

// ---- __syncthreads ------------------------------------------------------------------------------

namespace {

__global__ void rotate(int steps, int* out) {
  GPU_SHARED(int, x, [96]);
  const int t = threadIdx.x;
  int v = t;
  for (int i = 0; i < steps; ++i) {
    x[t] = v;
    __syncthreads();
    v = x[(t + 1) % 96];
    __syncthreads();
  }
  out[t] = v;
}

__global__ void votes_of_block(int* out) {
  const int t = threadIdx.x;
  const int count = __syncthreads_count(t % 3 == 0);
  const int any = __syncthreads_or(t == 50), none = __syncthreads_or(t == 1000);
  const int all = __syncthreads_and(t < 1000), not_all = __syncthreads_and(t != 50);
  out[t] = count * 10000 + any * 1000 + none * 100 + all * 10 + not_all;
}

__global__ void half_leaves(int* out) {
  GPU_SHARED(int, x, [64]);
  const int t = threadIdx.x;
  if (t >= 32 && t % 2) return;
  x[t] = t;
  __syncthreads();
  out[t] = x[t < 32 ? 62 - t / 2 * 2 : 0];
}

}  // namespace

LAYER_TEST(block_barrier) {
  std::vector<int> out(96);
  GPU_LAUNCH(shape(1, 96), rotate, 10, out.data());
  for (int t = 0; t < 96; ++t) EXPECT(out[t] == (t + 10) % 96);
  GPU_LAUNCH(shape(1, 96), votes_of_block, out.data());
  for (int t = 0; t < 96; ++t) EXPECT(out[t] == 32 * 10000 + 1000 + 10);
}

LAYER_TEST(blocks_do_not_wait_for_threads_that_left) {
  std::vector<int> out(64, -1);
  GPU_LAUNCH(shape(1, 64), half_leaves, out.data());
  for (int t = 0; t < 64; ++t) {
    EXPECT(out[t] == (t < 32 ? 62 - t / 2 * 2 : t % 2 ? -1 : 0));
  }
}

// ---- Named barriers -----------------------------------------------------------------------------

namespace {

// Warps 0 and 1 make 3 steps, warps 2 and 3 make 5, each pair by a barrier of its own.
__global__ void pairs(int* out) {
  GPU_SHARED(int, x, [128]);
  const int t = threadIdx.x, pair = t / 64;
  int v = t;
  for (int i = 0; i < (pair ? 5 : 3); ++i) {
    x[t] = v;
    gpu::named_barrier_sync(1 + pair, 64);
    v = x[pair * 64 + (t + 33) % 64];
    gpu::named_barrier_sync(1 + pair, 64);
  }
  out[t] = v;
}

// Warp 0 fills two slots in turn, warps 1 and 2 empty them: full and empty barriers for each.
__global__ void producer_consumers(int rounds, int* out) {
  GPU_SHARED(int, slots, [2][32]);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int sum = 0;
  for (int i = 0; i < rounds; ++i) {
    const int slot = i % 2, full = 1 + slot, empty = 3 + slot;
    if (warp == 0) {
      if (i >= 2) gpu::named_barrier_sync(empty, 96);
      slots[slot][lane] = i * 100 + lane;
      gpu::named_barrier_arrive(full, 96);
    } else {
      gpu::named_barrier_sync(full, 96);
      sum += slots[slot][31 - lane];
      if (i + 2 < rounds) gpu::named_barrier_arrive(empty, 96);
    }
  }
  out[threadIdx.x] = sum;
}

}  // namespace

LAYER_TEST(named_barriers) {
  std::vector<int> out(128);
  GPU_LAUNCH(shape(1, 128), pairs, out.data());
  for (int t = 0; t < 128; ++t) {
    EXPECT(out[t] == t / 64 * 64 + (t % 64 + 33 * (t < 64 ? 3 : 5)) % 64);
  }
  GPU_LAUNCH(shape(1, 96), producer_consumers, 7, out.data());
  for (int t = 32; t < 96; ++t) EXPECT(out[t] == 2100 + 7 * (31 - t % 32));
}

// ---- Cooperative grids --------------------------------------------------------------------------

namespace {

__global__ void ring(int steps, int* buffers) {
  const int n = int(gridDim.x * blockDim.x), i = int(blockIdx.x * blockDim.x + threadIdx.x);
  for (int s = 0; s < steps; ++s) {
    const int* from = buffers + s % 2 * n;
    buffers[(s + 1) % 2 * n + i] = from[(i + int(blockDim.x)) % n] + 1;
    cooperative_groups::this_grid().sync();
  }
}

__global__ void ring_by_flags(int steps, int* buffers, unsigned* arrived) {
  const int n = int(gridDim.x * blockDim.x), i = int(blockIdx.x * blockDim.x + threadIdx.x);
  for (int s = 0; s < steps; ++s) {
    const int* from = buffers + s % 2 * n;
    buffers[(s + 1) % 2 * n + i] = from[(i + int(blockDim.x)) % n] + 1;
    __syncthreads();
    if (threadIdx.x == 0) {
      gpu::red_release(arrived, 1);
      while (gpu::ld_acquire(arrived) < gridDim.x * unsigned(s + 1)) gpu::spin_wait();
    }
    __syncthreads();
  }
}

__global__ void last_block_sums(int* partial, unsigned* tickets, int* sum) {
  GPU_SHARED(bool, last, [1]);
  partial[blockIdx.x * blockDim.x + threadIdx.x] = int(blockIdx.x);
  __syncthreads();
  if (threadIdx.x == 0) last[0] = gpu::atomic_add_acq_rel(tickets, 1) == gridDim.x - 1;
  __syncthreads();
  if (!last[0]) return;
  int own = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) own += partial[b * blockDim.x + threadIdx.x];
  atomicAdd(sum, own);
}

}  // namespace

LAYER_TEST(cooperative_grid) {
  constexpr int kBlocks = 7, kThreads = 40, kSteps = 6, n = kBlocks * kThreads;
  for (const bool flags : {false, true}) {
    std::vector<int> buffers(2 * n, 0);
    std::iota(buffers.begin(), buffers.begin() + n, 0);
    unsigned arrived = 0;
    const gpu::Config config = shape(kBlocks, kThreads, 0, true);
    if (flags) {
      GPU_LAUNCH(config, ring_by_flags, kSteps, buffers.data(), &arrived);
    } else {
      GPU_LAUNCH(config, ring, kSteps, buffers.data());
    }
    bool right = true;
    for (int i = 0; i < n; ++i) right &= buffers[i] == (i + kSteps * kThreads) % n + kSteps;
    EXPECT(right);
  }
}

LAYER_TEST(last_block_takes_the_last_ticket) {
  std::vector<int> partial(9 * 32);
  unsigned tickets = 0;
  int sum = 0;
  GPU_LAUNCH(shape(9, 32), last_block_sums, partial.data(), &tickets, &sum);
  EXPECT(sum == 32 * 36);
}

LAYER_TEST(occupancy_by_threads_and_shared_memory) {
  EXPECT(gpu::max_active_blocks(ring, 1024, 0) == 2);
  EXPECT(gpu::max_active_blocks(ring, 65, 0) == 21);  // whole warps
  EXPECT(gpu::max_active_blocks(ring, 32, 0) == 32);
  EXPECT(gpu::max_active_blocks(ring, 128, 227 << 10) == 1);
  EXPECT(gpu::max_active_blocks(ring, 128, 113 << 10) == 2);
  EXPECT(gpu::max_active_blocks(ring, 128, (227 << 10) + 1) == 0);
  EXPECT(gpu::max_active_blocks(ring, 1025, 0) == 0);
}

// ---- Schedules ----------------------------------------------------------------------------------

namespace {

__global__ void write_down_order(unsigned* next, int* order) {
  for (int i = 0; i < 2; ++i) {
    order[atomicAdd(next, 1u)] = int(blockIdx.x * blockDim.x + threadIdx.x);
    gpu::spin_wait();
  }
}

std::vector<int> order_of(hx::Schedule schedule, uint64_t seed) {
  std::vector<int> order(2 * 128);
  unsigned next = 0;
  with_options(
      [&](hx::Options& o) {
        o.schedule = schedule;
        o.seed = seed;
        o.preempt = 0;
      },
      [&] { GPU_LAUNCH(shape(4, 32), write_down_order, &next, order.data()); });
  return order;
}

}  // namespace

LAYER_TEST(schedules_repeat_and_differ) {
  const std::vector<int> fifo = order_of(hx::Schedule::kFifo, 1);
  const std::vector<int> lifo = order_of(hx::Schedule::kLifo, 1);
  const std::vector<int> one = order_of(hx::Schedule::kRandom, 1);
  EXPECT(fifo[0] == 0 && fifo[1] == 1);
  EXPECT(lifo[0] == 95 && lifo[1] == 94);  // of the three resident blocks
  EXPECT(one == order_of(hx::Schedule::kRandom, 1));
  EXPECT(one != order_of(hx::Schedule::kRandom, 2));
  EXPECT(fifo == order_of(hx::Schedule::kFifo, 2));
}

}  // namespace hx_test
