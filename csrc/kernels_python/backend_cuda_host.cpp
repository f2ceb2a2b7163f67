// SPDX-License-Identifier: MIT
// What `_kernels_cuda_host` has beside the kernels: the choice of a GPU to imitate.
#include "launch.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

void set_device(int arch, int sms, int64_t shared_per_block, bool own_gemm) {
  device.properties = {arch, sms, shared_per_block};
  device.own_gemm = own_gemm;
}

}  // namespace

void bind_backend(py::module_& m) {
  using namespace py::literals;
  const Device usual;
  m.def("set_device", &set_device, "arch"_a = usual.properties.arch, "sms"_a = usual.properties.sms,
        "shared_per_block"_a = usual.properties.shared_per_block, "own_gemm"_a = false,
        "What the kernels are told of the GPU; own_gemm: large products run on them, too");
}

}  // namespace seq2seq_ext::kernels_python
