// SPDX-License-Identifier: MIT
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// One dtype's attention step (attention_<dtype>.cu).
template <class T>
Status attention_step_as(const AttentionStepParams& p, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
