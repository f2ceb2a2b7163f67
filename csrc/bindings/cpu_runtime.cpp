// SPDX-License-Identifier: MIT
#include "cpu_runtime.h"

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include "matrix.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

void parallel_for(int64_t count, void (*task)(int64_t, int64_t, void*), void* context) {
  // Grain 1: torch makes as many chunks as it has threads, and one where it is already inside a
  // parallel region.
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, 1, task, context));
}

bool gemm(const kernels::GemmParams& p) {
  const Operands o(p, aoti_torch_device_type_cpu(), 0);
  if (!o || p.wide) return false;
  const AtenTensorHandle a = o.a.handle(), b = o.b.handle(), c = o.c.handle();
  const AOTITorchError error = p.accumulate ? aoti_torch_cpu_addmm_out(c, c, a, b, 1.0, 1.0)
                                            : aoti_torch_cpu_mm_out(c, a, b);
  return error == AOTI_TORCH_SUCCESS;
}

}  // namespace

kernels::Runtime cpu_runtime() {
  uint32_t num_threads = 1;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&num_threads));
  kernels::Runtime runtime;
  runtime.num_threads = static_cast<int>(num_threads);
  runtime.parallel_for = parallel_for;
  runtime.gemm = gemm;
  return runtime;
}

}  // namespace seq2seq_ext::bindings
