// SPDX-License-Identifier: MIT
// A kernel's operand as a tensor that torch's products take.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "common/runtime.h"

namespace seq2seq_ext::bindings {

// Owns a tensor that borrows its memory. Not stable::Tensor: that would allocate a shared_ptr for
// each operand.
class Matrix {
 public:
  Matrix(const void* data, kernels::DType dtype, int64_t rows, int64_t columns, int64_t row_stride,
         int64_t column_stride, int32_t device_type, int32_t device_index) {
    const int64_t sizes[] = {rows, columns};
    const int64_t strides[] = {row_stride, column_stride};
    const int32_t type = dtype == kernels::DType::kFloat64    ? aoti_torch_dtype_float64()
                         : dtype == kernels::DType::kBFloat16 ? aoti_torch_dtype_bfloat16()
                         : dtype == kernels::DType::kFloat16  ? aoti_torch_dtype_float16()
                                                              : aoti_torch_dtype_float32();
    ok_ = aoti_torch_create_tensor_from_blob_v2(
              const_cast<void*>(data), 2, sizes, strides, 0, type, device_type, device_index,
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

struct Operands {
  Matrix a, b, c;

  Operands(const kernels::GemmParams& p, int32_t device_type, int32_t device_index)
      : a(p.a, p.dtype, p.m, p.k, p.a_stride_m, p.a_stride_k, device_type, device_index),
        b(p.b, p.dtype, p.k, p.n, p.b_stride_k, p.b_stride_n, device_type, device_index),
        c(p.c, p.wide ? kernels::DType::kFloat32 : p.dtype, p.m, p.n, p.c_stride_m, 1, device_type,
          device_index) {}

  explicit operator bool() const { return a && b && c; }
};

}  // namespace seq2seq_ext::bindings
