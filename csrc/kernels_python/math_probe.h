// SPDX-License-Identifier: MIT
// The vector functions of cpu/math.h, as compiled for the ISA that the kernels use.
#pragma once

#include <cstdint>
#include <string>

#include "common/dtype.h"

namespace seq2seq_ext::kernels_python {

// y[i] = function(x[i]) for n values of dtype (float32 or float64); false if there is no such
// function.
bool math_probe(const std::string& function, kernels::DType dtype, int64_t n, const void* x,
                void* y);

}  // namespace seq2seq_ext::kernels_python
