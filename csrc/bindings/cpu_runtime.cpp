// SPDX-License-Identifier: MIT
#include "cpu_runtime.h"

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

void parallel_for(int64_t count, void (*task)(int64_t, int64_t, void*), void* context) {
  // Grain 1: torch makes as many chunks as it has threads, and one where it is already inside a
  // parallel region.
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, 1, task, context));
}

// Owns a tensor that borrows its memory. Not stable::Tensor: that would allocate a shared_ptr for
// each operand.
class Matrix {
 public:
  Matrix(const void* data, kernels::DType dtype, int64_t rows, int64_t columns, int64_t row_stride,
         int64_t column_stride) {
    const int64_t sizes[] = {rows, columns};
    const int64_t strides[] = {row_stride, column_stride};
    const int32_t type = dtype == kernels::DType::kFloat64    ? aoti_torch_dtype_float64()
                         : dtype == kernels::DType::kBFloat16 ? aoti_torch_dtype_bfloat16()
                         : dtype == kernels::DType::kFloat16  ? aoti_torch_dtype_float16()
                                                              : aoti_torch_dtype_float32();
    ok_ = aoti_torch_create_tensor_from_blob_v2(
              const_cast<void*>(data), 2, sizes, strides, 0, type, aoti_torch_device_type_cpu(), 0,
              &handle_, aoti_torch_layout_strided(), nullptr, 0) == AOTI_TORCH_SUCCESS;
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  ~Matrix() {
    if (ok_) aoti_torch_delete_tensor_object(handle_);
  }

  explicit operator bool() const { return ok_; }
  AtenTensorHandle handle() const { return handle_; }

 private:
  AtenTensorHandle handle_ = nullptr;
  bool ok_ = false;
};

bool gemm(const kernels::GemmParams& p) {
  const Matrix a(p.a, p.dtype, p.m, p.k, p.a_stride_m, p.a_stride_k);
  const Matrix b(p.b, p.dtype, p.k, p.n, p.b_stride_k, p.b_stride_n);
  const Matrix c(p.c, p.dtype, p.m, p.n, p.c_stride_m, 1);
  if (!a || !b || !c) return false;
  const AOTITorchError error =
      p.accumulate
          ? aoti_torch_cpu_addmm_out(c.handle(), c.handle(), a.handle(), b.handle(), 1.0, 1.0)
          : aoti_torch_cpu_mm_out(c.handle(), a.handle(), b.handle());
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
