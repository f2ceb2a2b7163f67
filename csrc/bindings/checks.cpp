// SPDX-License-Identifier: MIT
#include "checks.h"

#include "tensors.h"

namespace seq2seq_ext::bindings {

std::optional<Tensor> checked_lengths(const std::optional<Tensor>& lengths, const Tensor& first,
                                      const char* first_name, int64_t batch, int64_t limit) {
  if (!lengths) return std::nullopt;
  if (lengths->scalar_type() != ScalarType::Long) {
    fail("lengths", dtype_text(lengths->scalar_type()), "dtype int64");
  }
  expect_device(*lengths, first, "lengths", first_name);
  expect_shape(*lengths, {batch}, "lengths");
  Tensor result = as_contiguous(*lengths);
  if (result.is_cpu()) {
    const auto* values = static_cast<const int64_t*>(result.const_data_ptr());
    for (int64_t b = 0; b < batch; ++b) {
      if (values[b] < 0 || values[b] > limit) {
        fail({"lengths", static_cast<int>(b), nullptr}, std::to_string(values[b]), "0 to ", limit);
      }
    }
  }
  return result;
}

}  // namespace seq2seq_ext::bindings
