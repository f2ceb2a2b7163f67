// SPDX-License-Identifier: MIT
#include "cuda_runtime.h"

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>

#include <array>
#include <mutex>
#include <vector>

#include "matrix.h"

namespace seq2seq_ext::bindings {
namespace {

int attribute(cudaDeviceAttr name, int device_index) {
  int value = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&value, name, device_index);
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("seq2seq_ext: ") + cudaGetErrorString(error));
  }
  return value;
}

kernels::cuda::Device query(int index) {
  kernels::cuda::Device device;
  device.arch = 10 * attribute(cudaDevAttrComputeCapabilityMajor, index) +
                attribute(cudaDevAttrComputeCapabilityMinor, index);
  device.sms = attribute(cudaDevAttrMultiProcessorCount, index);
  device.shared_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  return device;
}

// aten::mm.dtype_out by way of the dispatcher: its direct shim is missing from torch 2.10.
bool wide_product(const Operands& o) {
  AtenTensorHandle given[] = {o.a.handle(), o.b.handle(), o.c.handle()}, copies[3];
  for (int i = 0; i < 3; ++i) {  // the call takes over the handles
    if (aoti_torch_new_tensor_handle(given[i], &copies[i]) != AOTI_TORCH_SUCCESS) return false;
  }
  namespace detail = torch::stable::detail;
  std::array<StableIValue, 4> stack{detail::from(copies[0]), detail::from(copies[1]),
                                    detail::from(ScalarType::Float), detail::from(copies[2])};
  if (torch_call_dispatcher("aten::mm", "dtype_out", stack.data(), TORCH_ABI_VERSION) !=
      AOTI_TORCH_SUCCESS) {
    return false;
  }
  return aoti_torch_delete_tensor_object(detail::to<AtenTensorHandle>(stack[0])) ==
         AOTI_TORCH_SUCCESS;
}

}  // namespace

struct CudaCall::State {
  torch::stable::accelerator::DeviceGuard guard;
  int32_t device_index;
  std::vector<Tensor> work_memory;

  explicit State(int32_t index) : guard(index), device_index(index) {}

  static void* allocate(int64_t bytes, void* context) {
    auto& state = *static_cast<State*>(context);
    const int64_t size = bytes > 0 ? bytes : 1, stride = 1;
    AtenTensorHandle handle;
    if (aoti_torch_empty_strided(1, &size, &stride, aoti_torch_dtype_uint8(),
                                 aoti_torch_device_type_cuda(), state.device_index,
                                 &handle) != AOTI_TORCH_SUCCESS) {
      return nullptr;
    }
    return state.work_memory.emplace_back(handle).mutable_data_ptr();
  }

  // torch's own product, under torch's own settings: where allow_tf32 lets it round float32, so do
  // we. No shim adds 16-bit products to a float32 matrix; that is left to the project's product.
  static bool gemm(const kernels::GemmParams& p, void*, void* context) {
    if (p.wide && p.accumulate) return false;
    const Operands o(p, aoti_torch_device_type_cuda(), static_cast<State*>(context)->device_index);
    if (!o) return false;
    const AtenTensorHandle a = o.a.handle(), b = o.b.handle(), c = o.c.handle();
    if (p.wide) return wide_product(o);
    return (p.accumulate ? aoti_torch_cuda_addmm_out(c, c, a, b, 1.0, 1.0)
                         : aoti_torch_cuda_mm_out(c, a, b)) == AOTI_TORCH_SUCCESS;
  }
};

CudaCall::CudaCall(const Tensor& on) : state_(std::make_unique<State>(on.get_device_index())) {
  runtime_.device = cuda_device(state_->device_index);
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(state_->device_index, &runtime_.stream));
  runtime_.allocate = State::allocate;
  runtime_.gemm = State::gemm;
  runtime_.context = state_.get();
}

CudaCall::~CudaCall() = default;

kernels::cuda::Device cuda_device(int32_t index) {
  constexpr int32_t kKept = 64;  // asked once: a step takes less time than the questions
  static std::array<std::once_flag, kKept> asked;
  static std::array<kernels::cuda::Device, kKept> known;
  if (index < 0 || index >= kKept) return query(index);
  std::call_once(asked[index], [index] { known[index] = query(index); });
  return known[index];
}

}  // namespace seq2seq_ext::bindings
