// SPDX-License-Identifier: MIT
// What the op `decode` hands to the device's loop, its arguments checked.
#pragma once

#include <tuple>
#include <vector>

#include "backend.h"
#include "common/decode.h"

namespace seq2seq_ext::bindings {

struct DecodeCall {
  const kernels::DecodeModel& model;
  const kernels::DecodeSources& sources;
  const kernels::DecodeOptions& options;
  const Tensor& like;  // the embedding; of several models that of the widest dtype
  std::vector<kernels::DecodeMember> more = {};  // beside model and sources; CPU only
};

// tokens (R, T), lengths (R), log_probs (R, T) state, ranks (R), attentions (R, T, S), hidden (R,
// T, P), contexts (R, T, C), undefined (2): where logits were not finite first, else -1. What is
// not asked for is empty.
using Decoded = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

namespace backend {
Decoded decode(const DecodeCall& call);
}  // namespace backend

}  // namespace seq2seq_ext::bindings
