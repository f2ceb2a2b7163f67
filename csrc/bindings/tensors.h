// SPDX-License-Identifier: MIT
// Allocation and layout of tensors, by way of the direct shims: they cost a fifth of a trip through
// the dispatcher.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <array>
#include <cstring>

#include "checks.h"

namespace seq2seq_ext::bindings {

inline int32_t shim_dtype(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    case ScalarType::Half:
      return aoti_torch_dtype_float16();
    case ScalarType::Long:
      return aoti_torch_dtype_int64();
    default:
      return aoti_torch_dtype_float32();
  }
}

// An uninitialised contiguous tensor on `like`'s device.
inline Tensor allocate(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  std::array<int64_t, 4> strides{};
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= sizes.begin()[d];
  }
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(),
                                                  strides.data(), shim_dtype(type), device_type,
                                                  like.get_device_index(), &handle));
  Tensor result(handle);
#ifdef SEQ2SEQ_EXT_POISON  // tests: NaN and -1, so that an element left unwritten is seen
  const auto count = static_cast<size_t>(sizes.size() ? sizes.begin()[0] * strides[0] : 1);
  std::memset(result.mutable_data_ptr(), 0xff, count * result.element_size());
#endif
  return result;
}

inline Tensor allocate(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return allocate(like, sizes, like.scalar_type());
}

// What an op returns in place of a result that nobody wants.
inline Tensor nothing(const Tensor& like) { return allocate(like, {0}); }

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline Tensor converted(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

inline Tensor zeroed(Tensor tensor) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_zero_(tensor.get()));
  return tensor;
}

// A (outer, inner, size) tensor whose last dimension is contiguous and whose rows do not overlap:
// the given one where its strides already say so (a batch-first tensor transposed, a slice), else a
// copy.
struct Rows {
  Tensor tensor;
  int64_t stride_outer, stride_inner;

  explicit Rows(const Tensor& given) : tensor(given) {
    const auto sizes = given.sizes();
    const auto strides = given.strides();
    const int64_t outer = sizes[0], inner = sizes[1], size = sizes[2];
    stride_outer = strides[0];
    stride_inner = strides[1];
    // The stride of a dimension of size 1 means nothing; give it the value that lets (outer, inner)
    // collapse.
    if (inner == 1) stride_inner = outer == 1 ? size : stride_outer;
    if (outer == 1) stride_outer = stride_inner * inner;
    if ((size == 1 || strides[2] == 1) && stride_outer >= size && stride_inner >= size) return;
    tensor = torch::stable::contiguous(given);
    stride_inner = size;
    stride_outer = inner * size;
  }
};

}  // namespace seq2seq_ext::bindings
