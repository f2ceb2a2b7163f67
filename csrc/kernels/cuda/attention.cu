// SPDX-License-Identifier: MIT
#include <string>

#include "cuda/attention_launch.h"
#include "cuda/launch.h"
#include "cuda/math.cuh"

namespace seq2seq_ext::kernels::cuda {

Status attention_step(const AttentionStepParams& p, const Runtime& runtime) {
  if (p.w_query == nullptr && p.Q != p.A) {
    return Status::invalid("attention_step: without w_query expected Q = A = " +
                           std::to_string(p.A) + ", got Q = " + std::to_string(p.Q));
  }
  if (p.B == 0) return Status::ok();
  return dispatch_dtype(p.dtype,
                        [&](auto tag) { return attention_step_as<decltype(tag)>(p, runtime); });
}

}  // namespace seq2seq_ext::kernels::cuda
