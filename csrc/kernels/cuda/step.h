// SPDX-License-Identifier: MIT
// One step's gates, by storage type: each instantiation is a file of its own.
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// h', or o tanh(c') before a projection, to `out` (B, H) of type T, and c'. Defined in step.cuh.
template <class T>
Status step_gates(const StepParams& params, T* out, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
