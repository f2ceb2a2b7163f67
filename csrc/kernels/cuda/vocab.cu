// SPDX-License-Identifier: MIT
#include <string>

#include "cuda/launch.h"
#include "cuda/math.cuh"
#include "cuda/vocab_merge.h"

namespace seq2seq_ext::kernels::cuda {

Status vocab_pick(const VocabPickParams& p, const Runtime& runtime) {
  if (p.K < 1 || p.K > p.V) {
    return Status::invalid("vocab_pick: expected 1 <= K <= V = " + std::to_string(p.V) +
                           ", got K = " + std::to_string(p.K));
  }
  if (p.seed != nullptr && p.K != 1) {
    return Status::invalid("vocab_pick: expected K = 1 with a seed, got K = " +
                           std::to_string(p.K));
  }
  if (p.V > INT32_MAX) {
    return Status::invalid("vocab_pick: expected V < 2^31, got " + std::to_string(p.V));
  }
  if (p.B == 0) return Status::ok();
  return dispatch_dtype(p.dtype,
                        [&](auto tag) { return vocab_pick_as<decltype(tag)>(p, runtime); });
}

}  // namespace seq2seq_ext::kernels::cuda
