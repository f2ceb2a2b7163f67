// SPDX-License-Identifier: MIT
// Every report of the layer: seen when the kernel is wrong, not seen when it is right.
#include <stdexcept>

#include "layer_test.h"

namespace hx_test {

// ---- Barriers -----------------------------------------------------------------------------------

namespace {

__global__ void divergent_barrier(bool wrong) {
  if (wrong && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void same_barrier(bool wrong) {
  if (wrong) {
    divergent_barrier(true);
  } else {
    __syncthreads();
  }
}
// The second warp waits for a flag that the first sets after a barrier.
__global__ void deadlock(bool wrong, int* flag) {
  if (threadIdx.x >= 32) {
    if (wrong) {
      gpu::named_barrier_sync(1, 64);
    } else {
      __syncthreads();
    }
  } else {
    __syncthreads();
  }
}
__global__ void livelock(bool wrong, unsigned* flag) {
  if (threadIdx.x == 0 && !wrong) gpu::st_release(flag, 1);
  while (gpu::ld_acquire(flag) == 0) gpu::spin_wait();
}
__global__ void wait_for_all_blocks(unsigned* arrived) {
  if (threadIdx.x != 0) return;
  gpu::red_release(arrived, 1);
  while (gpu::ld_acquire(arrived) < gridDim.x) gpu::spin_wait();
}

}  // namespace

LAYER_TEST(report_divergent_barrier) {
  EXPECT_ERROR_IF_WRONG("divergent barrier: this thread is at errors_test.cpp:",
                        GPU_LAUNCH(shape(1, 64), same_barrier, wrong));
}

LAYER_TEST(report_deadlock) {
  with_options([](hx::Options& o) { o.strict = false; },
               [] {
                 EXPECT_ERROR_IF_WRONG("deadlock: no thread can run",
                                       GPU_LAUNCH(shape(1, 64), deadlock, wrong, nullptr));
               });
  // Who waits where.
  const std::string error = error_of([] { GPU_LAUNCH(shape(1, 64), deadlock, true, nullptr); });
  EXPECT(contains(error, "32 thread(s) in __syncthreads at errors_test.cpp:"));
  EXPECT(contains(error, "32 thread(s) in named_barrier_sync at errors_test.cpp:"));
}

LAYER_TEST(report_livelock) {
  unsigned flag = 0;
  EXPECT_ERROR_IF_WRONG("livelock: only threads that poll are left",
                        GPU_LAUNCH(shape(1, 64), livelock, wrong, (flag = 0, &flag)));
}

LAYER_TEST(report_blocks_that_wait_for_blocks_not_started) {
  unsigned arrived = 0;
  EXPECT_ERROR_IF_WRONG(
      "5 block(s) not started: the launch is not cooperative",
      GPU_LAUNCH(shape(8, 32, 0, !wrong), wait_for_all_blocks, (arrived = 0, &arrived)));
}

// ---- Named barriers -----------------------------------------------------------------------------

namespace {

__global__ void named(int id, int threads_of_first, int threads_of_second) {
  gpu::named_barrier_sync(id, threadIdx.x < 32 ? threads_of_first : threads_of_second);
}

}  // namespace

LAYER_TEST(report_named_barriers) {
  EXPECT_ERROR_IF_WRONG("named barrier 16: id is from 1 to 15",
                        GPU_LAUNCH(shape(1, 64), named, wrong ? 16 : 15, 64, 64));
  EXPECT_ERROR_IF_WRONG("named barrier 1 of 40 threads: expected a multiple of 32",
                        GPU_LAUNCH(shape(1, 64), named, 1, wrong ? 40 : 64, wrong ? 40 : 64));
  EXPECT_ERROR_IF_WRONG("others of the block came for",
                        GPU_LAUNCH(shape(1, 96), named, 1, wrong ? 64 : 96, 96));
}

// ---- Warps --------------------------------------------------------------------------------------

namespace {

__global__ void missing_lane(bool wrong) {
  if (wrong && threadIdx.x == 5) {
    __syncthreads();
  } else {
    __shfl_sync(gpu::kAllLanes, 1, 0);
    __syncthreads();
  }
}
__global__ void lane_not_in_mask(bool wrong) {
  if (threadIdx.x < 17) __ballot_sync(wrong ? 0x0000ffffu : 0x0001ffffu, 1);
}
__global__ void source_not_in_mask(bool wrong) {
  if (threadIdx.x < 16) __shfl_sync(0x0000ffffu, 1, wrong ? 20 : 15);
}
__global__ void source_left(bool wrong) {
  if (wrong && threadIdx.x == 20) return;
  if (wrong) __syncthreads();  // lane 20 has left by now
  __shfl_sync(gpu::kAllLanes, 1, 20);
}
__global__ void different_operations(bool wrong) {
  if (wrong && threadIdx.x < 16) {
    __ballot_sync(gpu::kAllLanes, 1);
  } else {
    __syncwarp(wrong ? gpu::kAllLanes : gpu::kAllLanes);
  }
}
__global__ void different_places(bool wrong) {
  if (wrong && threadIdx.x < 16) {
    __shfl_sync(gpu::kAllLanes, 1, 0);
  } else {
    __shfl_sync(gpu::kAllLanes, 1, 0);
  }
}
__global__ void width_of_shuffle(bool wrong) { __shfl_sync(gpu::kAllLanes, 1, 0, wrong ? 12 : 8); }
__global__ void mma_of_half_a_warp(bool wrong) {
  if (wrong && threadIdx.x >= 16) return;
  uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  gpu::mma_m16n8k16(d, a, b, __nv_bfloat16());
}

}  // namespace

LAYER_TEST(report_lanes) {
  EXPECT_ERROR_IF_WRONG("31 thread(s) in __shfl_sync at errors_test.cpp:",
                        GPU_LAUNCH(shape(1, 32), missing_lane, wrong));
  EXPECT_ERROR_IF_WRONG("lane 16 calls and is not in the mask 0x0000ffff",
                        GPU_LAUNCH(shape(1, 32), lane_not_in_mask, wrong));
  EXPECT_ERROR_IF_WRONG("shuffle reads lane 20, which is not in the mask",
                        GPU_LAUNCH(shape(1, 32), source_not_in_mask, wrong));
  EXPECT_ERROR_IF_WRONG("shuffle reads lane 20, which is not in the mask 0xffffffff or has exited",
                        GPU_LAUNCH(shape(1, 32), source_left, wrong));
  EXPECT_ERROR_IF_WRONG("divergent warp: lane",
                        GPU_LAUNCH(shape(1, 32), different_operations, wrong));
  EXPECT_ERROR_IF_WRONG("divergent warp: lane", GPU_LAUNCH(shape(1, 32), different_places, wrong));
  EXPECT_ERROR_IF_WRONG("shuffle width 12 is not a power of 2",
                        GPU_LAUNCH(shape(1, 32), width_of_shuffle, wrong));
  EXPECT_ERROR_IF_WRONG("mma.sync needs all 32 lanes",
                        GPU_LAUNCH(shape(1, 32), mma_of_half_a_warp, wrong));
}

// ---- Shared memory ------------------------------------------------------------------------------

namespace {

__global__ void takes(size_t first, size_t second) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  carver.take<char>(first);
  carver.take<char>(second);
}
__global__ void takes_twice(bool wrong) {
  GPU_DYN_SHARED(memory);
  gpu::Carver one(memory), two(memory);
  one.take<char>(64);
  two.take<char>(wrong ? 32 : 64);  // the same piece again is no overlap
}
__global__ void takes_aligned(size_t align) {
  GPU_DYN_SHARED(memory);
  gpu::Carver(memory).take<char>(8, align);
}
__global__ void large_array(bool wrong) {
  GPU_SHARED(char, fits, [48 << 10]);
  if (!wrong) return;
  GPU_SHARED(char, does_not, [1]);
  does_not[0] = fits[0];
}

}  // namespace

LAYER_TEST(report_shared_memory) {
  EXPECT_ERROR_IF_WRONG("232449 bytes of dynamic shared memory, the limit is 232448",
                        GPU_LAUNCH(shape(1, 1, (227 << 10) + wrong), takes, 1, 1));
  EXPECT_ERROR_IF_WRONG("piece [60, 101) of dynamic shared memory, the launch gave 100 bytes",
                        GPU_LAUNCH(shape(1, 1, 100), takes, 60, wrong ? 41 : 40));
  EXPECT_ERROR_IF_WRONG("piece [0, 32) of dynamic shared memory overlaps piece [0, 64)",
                        GPU_LAUNCH(shape(1, 1, 64), takes_twice, wrong));
  EXPECT_ERROR_IF_WRONG("alignment 256 is not a power of 2 up to 128",
                        GPU_LAUNCH(shape(1, 1, 64), takes_aligned, wrong ? 256 : 128));
  EXPECT_ERROR_IF_WRONG("bytes of static shared memory, the limit is 49152",
                        GPU_LAUNCH(shape(1, 1), large_array, wrong));
  EXPECT_ERROR_IF_WRONG("bytes of static and dynamic shared memory, the limit is 232448",
                        GPU_LAUNCH(shape(1, 1, wrong ? 200 << 10 : 179 << 10), large_array, false));
}

// ---- Launches -----------------------------------------------------------------------------------

namespace {

__global__ void sync_grid(int) { cooperative_groups::this_grid().sync(); }
__global__ void some_leave(bool wrong) {
  if (wrong && blockIdx.x == 1) return;
  cooperative_groups::this_grid().sync();
}
__global__ void throws(bool wrong) {
  if (wrong && threadIdx.x == 3) throw std::runtime_error("no such thing");
}
__global__ void traps(bool wrong) {
  if (wrong) __trap();
}
__global__ void launches(bool wrong) {
  if (wrong) GPU_LAUNCH(shape(1, 1), traps, false);
}

}  // namespace

LAYER_TEST(report_launches) {
  EXPECT_ERROR_IF_WRONG("block (1025,1,1): 1 to 1024 threads",
                        GPU_LAUNCH(shape(1, wrong ? 1025 : 1024), traps, false));
  EXPECT_ERROR_IF_WRONG("grid (1,65536,1)",
                        GPU_LAUNCH(shape(dim3(1, wrong ? 65536 : 65), 1), traps, false));
  EXPECT_ERROR_IF_WRONG("grid (0,1,1)", GPU_LAUNCH(shape(wrong ? 0 : 1, 1), traps, false));
  EXPECT_ERROR_IF_WRONG("exception in the kernel: no such thing",
                        GPU_LAUNCH(shape(1, 32), throws, wrong));
  EXPECT_ERROR_IF_WRONG("block (0,0,0) thread (3,0,0): exception",
                        GPU_LAUNCH(shape(1, 32), throws, wrong));
  EXPECT_ERROR_IF_WRONG("__trap()", GPU_LAUNCH(shape(1, 32), traps, wrong));
  EXPECT_ERROR_IF_WRONG("a kernel launches a kernel", GPU_LAUNCH(shape(1, 1), launches, wrong));
}

LAYER_TEST(report_grids_that_are_not_resident) {
  EXPECT_ERROR_IF_WRONG("grid.sync() in a launch that is not cooperative",
                        GPU_LAUNCH(shape(2, 32, 0, !wrong), sync_grid, 0));
  EXPECT_ERROR_IF_WRONG("2 thread(s) in grid.sync at",
                        GPU_LAUNCH(shape(3, 1, 0, true), some_leave, wrong));
  const auto small_device = [](hx::Options& o) { o.sms = 3, o.threads_per_sm = 128; };
  with_options(small_device, [] {
    EXPECT_ERROR_IF_WRONG(
        "cooperative launch of 4 blocks, at most 3 fit at once (3 multiprocessors)",
        GPU_LAUNCH(shape(wrong ? 4 : 3, 32, 120 << 10, true), sync_grid, 0));
    EXPECT_ERROR_IF_WRONG("cooperative launch of 7 blocks, at most 6 fit at once",
                          GPU_LAUNCH(shape(wrong ? 7 : 6, 64, 0, true), sync_grid, 0));
  });
}

// ---- Addresses ----------------------------------------------------------------------------------

namespace {

__global__ void misaligned_ldmatrix(bool wrong) {
  GPU_SHARED_ALIGNED(16, float, x, [64]);
  uint32_t r[4];
  gpu::ldmatrix_x4(r, x + (wrong && threadIdx.x == 9));
}
__global__ void ldmatrix_from(const float* global, bool wrong) {
  GPU_SHARED_ALIGNED(16, float, x, [64]);
  uint32_t r[2];
  gpu::ldmatrix_x2(r, wrong ? global : x);
}
__global__ void misaligned_copy(const float* in, bool to, bool from) {
  GPU_SHARED_ALIGNED(16, float, x, [64]);
  gpu::cp_async16(x + to, in + from);
}
__global__ void copy_out_of_shared(const float* in, float* global, bool wrong) {
  GPU_SHARED_ALIGNED(16, float, x, [4]);
  gpu::cp_async16(wrong ? global : x, in);
}
__global__ void too_many_source_bytes(const float* in, bool wrong) {
  GPU_SHARED_ALIGNED(16, float, x, [4]);
  gpu::cp_async<4>(x, in, wrong ? 5 : 4);
}
__global__ void misaligned_load(const char* in, bool wrong) { gpu::ld_cg16(in + 8 * wrong); }

}  // namespace

LAYER_TEST(report_addresses) {
  alignas(16) static float memory[8] = {};
  EXPECT_ERROR_IF_WRONG("ldmatrix: a row's address is not a multiple of 16",
                        GPU_LAUNCH(shape(1, 32), misaligned_ldmatrix, wrong));
  EXPECT_ERROR_IF_WRONG("ldmatrix: a row is not in this block's shared memory",
                        GPU_LAUNCH(shape(1, 32), ldmatrix_from, memory, wrong));
  EXPECT_ERROR_IF_WRONG("cp.async (to shared memory): address is not a multiple of 16",
                        GPU_LAUNCH(shape(1, 1), misaligned_copy, memory, wrong, false));
  EXPECT_ERROR_IF_WRONG("cp.async (from global memory): address is not a multiple of 16",
                        GPU_LAUNCH(shape(1, 1), misaligned_copy, memory, false, wrong));
  EXPECT_ERROR_IF_WRONG("cp.async: destination is not in this block's shared memory",
                        GPU_LAUNCH(shape(1, 1), copy_out_of_shared, memory, memory, wrong));
  EXPECT_ERROR_IF_WRONG("cp.async reads 5 bytes to write 4",
                        GPU_LAUNCH(shape(1, 1), too_many_source_bytes, memory, wrong));
  EXPECT_ERROR_IF_WRONG(
      "ld_cg16: address is not a multiple of 16",
      GPU_LAUNCH(shape(1, 1), misaligned_load, reinterpret_cast<const char*>(memory), wrong));
}

// ---- mbarriers ----------------------------------------------------------------------------------

namespace {

__global__ void uses_mbarrier(bool initialise, unsigned arrivals, const float* bulk,
                              unsigned bytes) {
  GPU_SHARED(uint64_t, barrier, [1]);
  GPU_SHARED_ALIGNED(16, float, x, [8]);
  if (initialise) gpu::mbar_init(barrier, 2);
  for (unsigned i = 0; i < arrivals; ++i) gpu::mbar_arrive(barrier);
  if (bulk != nullptr) gpu::bulk_copy_g2s(x, bulk, bytes, barrier);
}
__global__ void leaves_early(const float* in, bool wrong) {
  GPU_SHARED(uint64_t, barrier, [1]);
  GPU_SHARED_ALIGNED(16, float, x, [8]);
  gpu::mbar_init(barrier, 1);
  gpu::mbar_arrive_expect_tx(barrier, 32);
  gpu::bulk_copy_g2s(x, in, 32, barrier);
  if (!wrong) gpu::mbar_wait(barrier, 0);
}
// The bytes of the phase never come.
__global__ void too_few_bytes(const float* in, bool wrong) {
  GPU_SHARED(uint64_t, barrier, [1]);
  GPU_SHARED_ALIGNED(16, float, x, [8]);
  gpu::mbar_init(barrier, 1);
  gpu::mbar_arrive_expect_tx(barrier, wrong ? 48 : 32);
  gpu::bulk_copy_g2s(x, in, 32, barrier);
  gpu::mbar_wait(barrier, 0);
}

}  // namespace

LAYER_TEST(report_mbarriers) {
  alignas(16) static float memory[8] = {};
  const auto waits = [&](bool wrong) { GPU_LAUNCH(shape(1, 1), leaves_early, memory, wrong); };
  EXPECT_ERROR_IF_WRONG("mbarrier is not initialised",
                        GPU_LAUNCH(shape(1, 1), uses_mbarrier, !wrong, 1, nullptr, 0));
  EXPECT_ERROR_IF_WRONG("livelock: only threads that poll are left",
                        GPU_LAUNCH(shape(1, 1), too_few_bytes, memory, wrong));
  EXPECT_ERROR_IF_WRONG("ended with a bulk copy to its shared memory under way", waits(wrong));
  EXPECT_ERROR_IF_WRONG(
      wrong ? "bulk copy: 24 bytes are not a multiple of 16" : "",
      wrong ? (void)GPU_LAUNCH(shape(1, 1), uses_mbarrier, true, 1, memory, 24) : waits(false));
}

// ---- After an error -----------------------------------------------------------------------------

LAYER_TEST(launches_work_after_an_error) {
  for (int i = 0; i < 3; ++i) {
    EXPECT(error_of([] { GPU_LAUNCH(shape(20, 64), same_barrier, true); }) != "");
    EXPECT(error_of([] { GPU_LAUNCH(shape(20, 64), same_barrier, false); }) == "");
  }
}

}  // namespace hx_test
