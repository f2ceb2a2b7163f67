// SPDX-License-Identifier: MIT
// Weights packed for decoding.
#include "backend.h"
#include "cpu/launch.h"
#include "cpu_runtime.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

Tensor pack_panels(const Tensor& weight, int64_t gates) {
  expect_dims(weight, 2, "weight", "N, K");
  expect_supported_dtype(weight, "weight");
  if (weight.size(0) < 1 || weight.size(1) < 1) {
    fail("weight", shape_of(weight), "one row and one column at least");
  }
  if (gates != 0 && gates != 1 && gates != 3 && gates != 4) {
    fail("gates", std::to_string(gates), "0 (an output layer), 1, 3 or 4");
  }
  if (gates > 0 && weight.size(0) % gates != 0) {
    fail("weight", shape_of(weight), "a multiple of ", gates, " rows");
  }
  const Tensor source = as_contiguous(weight);
  kernels::PanelsParams p{kernel_dtype(weight),    weight.size(0),          weight.size(1),
                          static_cast<int>(gates), source.const_data_ptr(), nullptr};
  const Tensor panels = allocate(weight, {backend::panel_elements(p)});
  p.panels = panels.mutable_data_ptr();
  int64_t count;
  expect_ok(kernels::cpu::pack_panels(p, cpu_runtime(), &count));
  return panels;
}

}  // namespace

int64_t backend::panel_elements(const kernels::PanelsParams& params) {
  kernels::PanelsParams p = params;
  p.panels = nullptr;
  int64_t count;
  expect_ok(kernels::cpu::pack_panels(p, cpu_runtime(), &count));
  return count;
}

}  // namespace seq2seq_ext::bindings

STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, CPU, m) {
  m.impl("pack_panels", TORCH_BOX(&seq2seq_ext::bindings::pack_panels));
}
