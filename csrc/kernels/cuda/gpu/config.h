// SPDX-License-Identifier: MIT
// How a kernel is launched; for GPU_LAUNCH (gpu.h).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace gpu {

struct Config {
  dim3 grid{1}, block{1};
  size_t smem = 0;  // bytes of dynamic shared memory
  cudaStream_t stream = nullptr;
  bool cooperative = false;  // all blocks at once, or the launch fails
};

}  // namespace gpu
