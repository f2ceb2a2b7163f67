// SPDX-License-Identifier: MIT
// The kernels of one module: the CPU's in `_kernels`; in `_kernels_cuda_host` the CUDA kernels, run
// by host execution. Both have the same names for the same params.
#pragma once

#include "arrays.h"

#ifdef SEQ2SEQ_EXT_HOST_EXECUTION
#include "cuda/launch.h"
#include "device.h"  // kernel_bench: plain memory, poisoned, and a product of three loops
#else
#include "common/runtime.h"
#include "cpu/launch.h"
#endif

namespace seq2seq_ext::kernels_python {

#ifdef SEQ2SEQ_EXT_HOST_EXECUTION
namespace launchers = kernels::cuda;

// The GPU that the kernels take themselves to run on, and whether large products are their own.
struct Device {
  kernels::cuda::Device properties;
  bool own_gemm = false;
};
inline Device device;

// The services for one call.
struct Host {
  kernels::cuda::Runtime runtime;
  explicit Host(int) : runtime(kernel_bench::runtime(device.properties, device.own_gemm)) {}
  ~Host() { kernel_bench::release_work_memory(); }
};
#else
namespace launchers = kernels::cpu;

struct Host {
  kernels::Runtime runtime;
  explicit Host(int threads) : runtime(kernels::default_runtime(threads)) {}
};

// Weights in panels, of `p` but for them.
inline std::vector<char> panels_of(kernels::PanelsParams p) {
  const Host host(1);
  int64_t count = 0;
  expect_ok(launchers::pack_panels(p, host.runtime, &count));
  std::vector<char> panels(count * kernels::size_of(p.dtype));
  p.panels = panels.data();
  expect_ok(launchers::pack_panels(p, host.runtime, &count));
  return panels;
}
#endif

template <class Params, class Runtime>
void launch(kernels::Status (*kernel)(const Params&, const Runtime&), const Params& params,
            int threads) {
  py::gil_scoped_release release;
  const Host host(threads);
  const kernels::Status status = kernel(params, host.runtime);
  py::gil_scoped_acquire acquire;
  expect_ok(status);
}

}  // namespace seq2seq_ext::kernels_python
