// SPDX-License-Identifier: MIT
// Stands in for cuda_runtime.cpp in the library that tests run: device memory is memory, a launch
// is a call. The device's properties are what a test says they are.
#include "backend.h"
#include "cuda_runtime.h"
#include "device.h"  // kernel_bench: plain memory, poisoned, and a product of three loops

namespace seq2seq_ext::bindings {
namespace {

kernels::cuda::Device device;

void set_device(int64_t arch, int64_t sms, int64_t shared_per_block) {
  device.arch = static_cast<int>(arch);
  device.sms = static_cast<int>(sms);
  device.shared_per_block = shared_per_block;
}

}  // namespace

struct CudaCall::State {
  ~State() { kernel_bench::release_work_memory(); }
};

CudaCall::CudaCall(const Tensor&)
    : state_(std::make_unique<State>()), runtime_(kernel_bench::runtime(device, false)) {}

CudaCall::~CudaCall() = default;

}  // namespace seq2seq_ext::bindings

STABLE_TORCH_LIBRARY_FRAGMENT(SEQ2SEQ_EXT_NAMESPACE, m) {
  m.def("set_device(int arch, int sms, int shared_per_block) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("set_device", TORCH_BOX(&seq2seq_ext::bindings::set_device));
}
