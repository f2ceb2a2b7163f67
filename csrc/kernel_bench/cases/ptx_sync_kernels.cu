// SPDX-License-Identifier: MIT
#include "cases/ptx_kernels.h"
#include "cuda/gpu/gpu.h"

namespace seq2seq_ext::kernel_bench::ptx {
namespace {

constexpr unsigned kWords = 1024;  // of a message

__device__ inline uint32_t word(unsigned block, unsigned round, unsigned i) {
  return (block * 31 + round) * 4096 + i;
}

__device__ inline void wait_for(const unsigned* flag, unsigned value) {
  while (gpu::ld_acquire(flag) < value) gpu::spin_wait();
}

// Two buffers for each receiver. flags[2 b]: messages sent to block b, flags[2 b + 1]: read by it.
__global__ void flags_kernel(int rounds, uint32_t* data, unsigned* flags, unsigned* out) {
  const unsigned t = threadIdx.x, threads = blockDim.x;
  if (blockIdx.x == 0) {
    for (unsigned r = 0; r < unsigned(rounds); ++r) {
      for (unsigned b = 1; b < gridDim.x; ++b) {
        if (t == 0 && r >= 2) wait_for(&flags[2 * b + 1], r - 1);
        __syncthreads();
        uint32_t* message = data + (2 * b + r % 2) * kWords;
        for (unsigned i = t; i < kWords; i += threads) message[i] = word(b, r, i);
        __syncthreads();
        // By turns, as both are to be tried.
        if (t == 0 && r % 2) gpu::st_release(&flags[2 * b], r + 1);
        if (t == 0 && r % 2 == 0) gpu::red_release(&flags[2 * b], 1);
      }
    }
    return;
  }
  const unsigned b = blockIdx.x;
  unsigned wrong = 0;
  for (unsigned r = 0; r < unsigned(rounds); ++r) {
    if (t == 0) wait_for(&flags[2 * b], r + 1);
    __syncthreads();
    const uint32_t* message = data + (2 * b + r % 2) * kWords;
    for (unsigned i = 4 * t; i < kWords; i += 4 * threads) {
      const uint4 v = gpu::ld_cg16(message + i);
      wrong += v.x != word(b, r, i);
      wrong += v.y != word(b, r, i + 1);
      wrong += message[i + 2] != word(b, r, i + 2);
      wrong += message[i + 3] != word(b, r, i + 3);
    }
    __syncthreads();
    if (t == 0) gpu::red_release(&flags[2 * b + 1], 1);
  }
  atomicAdd(&out[b], wrong);
}

__global__ void tickets_kernel(unsigned* tickets, unsigned* partial, unsigned* out) {
  GPU_SHARED(unsigned, ticket, [1]);
  const unsigned t = threadIdx.x;
  partial[blockIdx.x * blockDim.x + t] = blockIdx.x * 1000 + t;
  __syncthreads();
  if (t == 0) ticket[0] = gpu::atomic_add_acq_rel(tickets, 1);
  __syncthreads();
  if (ticket[0] != gridDim.x - 1) return;
  unsigned sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b * blockDim.x + t];
  atomicAdd(out, sum);
  // Back to zero for the next launch; nobody else is left.
  if (t == 0) gpu::st_relaxed(tickets, gpu::ld_relaxed(tickets) - gridDim.x);
}

__global__ void named_barriers_kernel(int rounds, int* out) {
  GPU_SHARED(int, slots, [2][32]);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  int sum = 0;
  for (int r = 0; r < rounds; ++r) {
    const int slot = r % 2, full = 1 + slot, empty = 3 + slot;
    if (warp == 0) {
      if (r >= 2) gpu::named_barrier_sync(empty, 96);
      slots[slot][lane] = 100 * r + lane;
      gpu::named_barrier_arrive(full, 96);
    } else {
      gpu::named_barrier_sync(full, 96);
      sum += slots[slot][(lane + warp) % 32];
      if (r + 2 < rounds) gpu::named_barrier_arrive(empty, 96);
    }
  }
  out[threadIdx.x] = sum;
}

constexpr int kTile = 256, kStages = 2;

__global__ void bulk_pipeline_kernel(const float* in, int tiles, float* out) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  float* stages = carver.take<float>(kStages * kTile, 128);
  uint64_t* full = carver.take<uint64_t>(kStages);
  const int t = int(threadIdx.x);
  if (t == 0) {
    for (int s = 0; s < kStages; ++s) gpu::mbar_init(&full[s], 1);
    gpu::fence_mbar_init();
  }
  __syncthreads();
  const auto fetch = [&](int tile) {
    gpu::mbar_arrive_expect_tx(&full[tile % kStages], kTile * sizeof(float));
    gpu::bulk_copy_g2s(stages + tile % kStages * kTile, in + tile * kTile, kTile * sizeof(float),
                       &full[tile % kStages]);
  };
  if (t == 0) fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    if (t == 0 && tile + 1 < tiles) fetch(tile + 1);
    float* stage = stages + tile % kStages * kTile;
    gpu::mbar_wait(&full[tile % kStages], unsigned(tile / kStages) & 1);
    for (int i = t; i < kTile; i += int(blockDim.x)) {
      out[tile * kTile + i] = 2 * stage[i];
      stage[i] = -1;  // an own write before the copy that follows
    }
    gpu::fence_proxy_async();
    __syncthreads();
  }
}

__global__ void mbarrier_phases_kernel(int phases, int* out) {
  GPU_SHARED(int, x, [96]);
  GPU_SHARED(uint64_t, barrier, [1]);
  const int t = int(threadIdx.x);
  if (t == 0) {
    gpu::mbar_init(barrier, 96);
    gpu::fence_mbar_init();
  }
  __syncthreads();
  int v = t;
  for (int i = 0; i < phases; ++i) {
    x[t] = v;
    gpu::mbar_arrive(barrier);
    gpu::mbar_wait(barrier, unsigned(2 * i) & 1);
    v = x[(t + 1) % 96];
    gpu::mbar_arrive(barrier);
    while (!gpu::mbar_try_wait(barrier, unsigned(2 * i + 1) & 1)) {
    }
  }
  out[t] = v;
}

gpu::Config shape(unsigned grid, unsigned block, size_t smem = 0) {
  gpu::Config config;
  config.grid = dim3(grid);
  config.block = dim3(block);
  config.smem = smem;
  return config;
}

}  // namespace

bool flags(int blocks, int rounds, uint32_t* data, unsigned* flags, unsigned* out) {
  gpu::Config config = shape(unsigned(blocks), 64);
  config.cooperative = true;
  return GPU_LAUNCH(config, flags_kernel, rounds, data, flags, out) == cudaSuccess;
}
bool tickets(int blocks, unsigned* tickets, unsigned* partial, unsigned* out) {
  return GPU_LAUNCH(shape(unsigned(blocks), 64), tickets_kernel, tickets, partial, out) ==
         cudaSuccess;
}
bool named_barriers(int rounds, int* out) {
  return GPU_LAUNCH(shape(1, 96), named_barriers_kernel, rounds, out) == cudaSuccess;
}
bool bulk_pipeline(const float* in, int tiles, float* out) {
  return GPU_LAUNCH(shape(1, 128, 4096), bulk_pipeline_kernel, in, tiles, out) == cudaSuccess;
}
bool mbarrier_phases(int phases, int* out) {
  return GPU_LAUNCH(shape(1, 96), mbarrier_phases_kernel, phases, out) == cudaSuccess;
}

}  // namespace seq2seq_ext::kernel_bench::ptx
