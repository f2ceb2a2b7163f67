// SPDX-License-Identifier: MIT
// NumPy arrays in and out of the kernels: checked, never converted. The element type says the
// dtype: float32, float64, float16, or uint16 for the bits of bfloat16.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/status.h"

namespace seq2seq_ext::kernels_python {

namespace py = pybind11;
using kernels::DType;

inline std::string text(const std::vector<int64_t>& shape) {
  std::string r = "(";
  for (int64_t n : shape) r += (r.size() > 1 ? ", " : "") + std::to_string(n);
  return r + ")";
}

#ifdef SEQ2SEQ_EXT_HOST_EXECUTION
inline constexpr bool kCudaKernels = true;
#else
inline constexpr bool kCudaKernels = false;
#endif

inline DType dtype_of(const py::array& a, const char* name) {
  if (a.dtype().is(py::dtype::of<float>())) return DType::kFloat32;
  if (a.dtype().is(py::dtype::of<double>())) return DType::kFloat64;
  if (a.dtype().is(py::dtype::of<uint16_t>())) return DType::kBFloat16;
  if (kCudaKernels && a.dtype().is(py::dtype("float16"))) return DType::kFloat16;
  throw py::value_error(std::string(name) +
                        ": expected float32, float64 or uint16 (the bits of bfloat16), got " +
                        std::string(py::str(a.dtype())));
}

inline DType state_of(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

inline py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return py::dtype::of<float>();
    case DType::kFloat64:
      return py::dtype::of<double>();
    case DType::kFloat16:
      return py::dtype("float16");
    default:
      return py::dtype::of<uint16_t>();
  }
}

using Shape = std::vector<int64_t>;

// The data of a C-contiguous array of this dtype and shape; only its last dimension need be
// contiguous if `strided`.
inline const void* input(const py::array& a, const char* name, DType dtype, const Shape& shape,
                         bool strided = false) {
  const Shape found(a.shape(), a.shape() + a.ndim());
  bool contiguous = a.size() == 0 || (a.flags() & py::array::c_style) != 0;
  if (strided && a.ndim() > 0) {
    const py::ssize_t last = a.ndim() - 1;
    contiguous |= a.shape(last) == 1 || a.strides(last) == a.itemsize();
  }
  if (dtype_of(a, name) != dtype || found != shape || !contiguous) {
    throw py::value_error(std::string(name) + ": expected a contiguous " +
                          std::string(py::str(numpy_dtype(dtype))) + " array of shape " +
                          text(shape) + ", got " + std::string(py::str(a.dtype())) + " " +
                          text(found) + (contiguous ? "" : ", not contiguous"));
  }
  return a.data();
}

using MaybeArray = std::optional<py::array>;

inline const void* input(const MaybeArray& a, const char* name, DType dtype, const Shape& shape) {
  return a ? input(*a, name, dtype, shape) : nullptr;
}

inline int64_t stride(const py::array& a, int dimension) {
  return a.strides(dimension) / a.itemsize();
}

inline const int64_t* input_lengths(const MaybeArray& a, int64_t B, int64_t longest) {
  if (!a) return nullptr;
  if (!a->dtype().is(py::dtype::of<int64_t>()) || a->ndim() != 1 || a->shape(0) != B ||
      (a->flags() & py::array::c_style) == 0) {
    throw py::value_error("lengths: expected int64 of shape " + text({B}));
  }
  const auto* data = static_cast<const int64_t*>(a->data());
  if (kCudaKernels) return data;  // the caller cannot see them: these kernels clamp
  for (int64_t b = 0; b < B; ++b) {
    if (data[b] < 0 || data[b] > longest) throw py::value_error("lengths: out of range");
  }
  return data;
}

// A new array, all bits set: NaN, so that what a kernel leaves out is seen.
inline py::array output(DType dtype, const Shape& shape) {
  py::array a(numpy_dtype(dtype), shape);
  std::memset(a.mutable_data(), 0xff, static_cast<size_t>(a.nbytes()));
  return a;
}

inline void expect_ok(const kernels::Status& status) {
  if (!status) throw py::value_error(status.message());
}

}  // namespace seq2seq_ext::kernels_python
