// SPDX-License-Identifier: MIT
// What a step of a persistent kernel cannot get below: one meeting of all blocks, by the runtime's
// grid barrier and by a counter that blocks add to and poll.
#include <cstdio>

#include "bench.h"
#include "cuda/gpu/gpu.h"

namespace seq2seq_ext::kernel_bench {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) flag_rounds(unsigned* counter, int rounds) {
  for (int r = 0; r < rounds; ++r) {
    __syncthreads();
    if (threadIdx.x == 0) {
      gpu::red_release(counter, 1u);
      while (gpu::ld_acquire(counter) < gridDim.x * unsigned(r + 1)) gpu::spin_wait();
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) grid_rounds(unsigned* counter, int rounds) {
  for (int r = 0; r < rounds; ++r) cooperative_groups::this_grid().sync();
  if (blockIdx.x == 0 && threadIdx.x == 0) *counter = unsigned(rounds) * gridDim.x;
}

struct Launch {
  void (*kernel)(unsigned*, int);
  const char* name;
  unsigned* counter;
  int blocks, rounds;
  cudaError_t error = cudaSuccess;
};

void run(void* opaque) {
  Launch& launch = *static_cast<Launch*>(opaque);
  const unsigned zero = 0;
  to_device(launch.counter, &zero, sizeof(zero));
  gpu::Config config;
  config.grid = dim3(launch.blocks);
  config.block = dim3(kThreads);
  config.cooperative = true;
  launch.error = GPU_LAUNCH(config, launch.kernel, launch.counter, launch.rounds);
}

}  // namespace

BENCH_CASE(latency, "rounds=1000 (without a GPU: 3) blocks=0 (0: 8, 16, 32, 64, all; 8)") {
  const bool timed = device_name() != "host execution";
  const int rounds = static_cast<int>(bench.args.size("rounds", timed ? 1000 : 3));
  const int asked = static_cast<int>(bench.args.size("blocks", timed ? 0 : 8));
  const std::vector<int> blocks =
      asked ? std::vector<int>{asked} : std::vector<int>{8, 16, 32, 64, bench.runtime.device.sms};
  Integers<unsigned> counter(1);
  for (const int b : blocks) {
    for (const auto& [kernel, name] : {std::pair{flag_rounds, "flag"}, {grid_rounds, "grid"}}) {
      Launch launch{kernel, name, counter.data(), b, rounds};
      run(&launch);
      synchronize();
      const std::string what = std::string(name) + " barrier, " + std::to_string(b) + " blocks";
      bench.check_true(what, launch.error == cudaSuccess &&
                                 counter.download()[0] == unsigned(b) * unsigned(rounds));
      const double whole = seconds(run, &launch, 20);
      launch.rounds = 0;
      const double none = seconds(run, &launch, 20);
      if (whole > 0) {
        std::printf("csv latency,%s,%d,%.4f\n", name, b, (whole - none) / rounds * 1e6);
      }
    }
  }
}

}  // namespace seq2seq_ext::kernel_bench
