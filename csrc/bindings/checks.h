// SPDX-License-Identifier: MIT
// Argument checks. Each failure throws std::invalid_argument, which reaches Python as a ValueError
// that names the argument, what was expected and what came. seq2seq_ext/_checks.py says the same in
// the same words for the paths that do not come through here.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "common/dtype.h"
#include "common/status.h"

namespace seq2seq_ext::bindings {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A tensor argument's name, composed only when it is needed. `weights` are told by index and role:
// weights[1] (w_hh).
struct Name {
  const char* text;
  int index = -1;
  const char* role = nullptr;

  Name(const char* text) : text(text) {}  // NOLINT: a literal is a name
  Name(const char* text, int index, const char* role) : text(text), index(index), role(role) {}

  std::string str() const {
    std::string result = text;
    if (index >= 0) result += "[" + std::to_string(index) + "]";
    if (role) result += std::string(" (") + role + ")";
    return result;
  }
};

template <typename... Expected>
[[noreturn]] void fail(const Name& name, const std::string& got, const Expected&... expected) {
  std::ostringstream message;
  message << name.str() << ": expected ";
  (message << ... << expected);
  message << ", got " << got;
  throw std::invalid_argument(message.str());
}

inline std::string shape_text(const int64_t* sizes, size_t count) {
  std::string text = "(";
  for (size_t i = 0; i < count; ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + (count == 1 ? ",)" : ")");
}

inline std::string shape_of(const Tensor& tensor) {
  return "shape " + shape_text(tensor.sizes().data(), tensor.sizes().size());
}

inline const char* dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

inline ScalarType state_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void expect_shape(const Tensor& tensor, std::initializer_list<int64_t> expected,
                         const Name& name) {
  const auto sizes = tensor.sizes();
  bool same = sizes.size() == expected.size();
  for (size_t i = 0; same && i < expected.size(); ++i) same = sizes[i] == expected.begin()[i];
  if (!same) {
    fail(name, shape_of(tensor), "shape ", shape_text(expected.begin(), expected.size()));
  }
}

inline void expect_device(const Tensor& tensor, const Tensor& first, const Name& name,
                          const char* first_name) {
  if (tensor.is_cpu() != first.is_cpu() || tensor.is_cuda() != first.is_cuda() ||
      tensor.get_device_index() != first.get_device_index()) {
    const auto text = [](const Tensor& t) {
      if (t.is_cpu()) return std::string("cpu");
      return (t.is_cuda() ? "cuda:" : "device ") + std::to_string(t.get_device_index());
    };
    fail(name, text(tensor), first_name, "'s device ", text(first));
  }
}

// The dtype and the device of the op's first argument.
inline void expect_like(const Tensor& tensor, const Tensor& first, const Name& name,
                        const char* first_name) {
  const ScalarType type = tensor.scalar_type(), expected = first.scalar_type();
  if (type != expected) fail(name, dtype_text(type), first_name, "'s dtype ", dtype_text(expected));
  expect_device(tensor, first, name, first_name);
}

inline void expect_dims(const Tensor& tensor, int64_t count, const Name& name,
                        const char* letters) {
  if (tensor.dim() != count) fail(name, shape_of(tensor), count, " dimensions (", letters, ")");
}

// The argument that sets the dtype. `letters`: its dimensions, e.g. "T, B, I"; all but B must be at
// least 1.
inline void expect_first(const Tensor& tensor, int64_t count, const Name& name,
                         const char* letters) {
  expect_dims(tensor, count, name, letters);
  const ScalarType type = tensor.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::BFloat16 && type != ScalarType::Double &&
      type != ScalarType::Half) {
    fail(name, dtype_text(type), "dtype float32, float64, bfloat16 or float16");
  }
  for (int64_t d = 0; d < count; ++d) {
    const char letter = letters[3 * d];
    if (letter != 'B' && tensor.size(d) < 1) fail(name, shape_of(tensor), letter, " >= 1");
  }
}

inline void expect_cell_state(const Tensor& c, const Tensor& x, const Name& name) {
  const ScalarType type = c.scalar_type(), other = x.scalar_type();
  if (type != other && type != state_type(other)) {
    fail(name, dtype_text(type), "x's dtype ", dtype_text(other),
         other == state_type(other) ? "" : " or float32");
  }
  expect_device(c, x, name, "x");
}

// `limit`: T or S. The values are read, so only for CPU tensors. Returns a contiguous tensor or
// nullopt.
std::optional<Tensor> checked_lengths(const std::optional<Tensor>& lengths, const Tensor& first,
                                      const char* first_name, int64_t batch, int64_t limit);

// A kernel's complaint is about the machine or the build, not about an argument: RuntimeError.
inline void expect_ok(const kernels::Status& status) {
  if (!status) throw std::runtime_error("seq2seq_ext: " + status.message());
}

inline kernels::DType kernel_dtype(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return kernels::DType::kFloat64;
    case ScalarType::BFloat16:
      return kernels::DType::kBFloat16;
    case ScalarType::Half:
      return kernels::DType::kFloat16;
    default:
      return kernels::DType::kFloat32;
  }
}
inline kernels::DType kernel_dtype(const Tensor& tensor) {
  return kernel_dtype(tensor.scalar_type());
}

}  // namespace seq2seq_ext::bindings
