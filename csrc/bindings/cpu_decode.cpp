// SPDX-License-Identifier: MIT
// Whole sequences on the CPU.
#include <algorithm>

#include "cpu/decode/engine.h"
#include "cpu_runtime.h"
#include "decode_call.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

Decoded tensors_of(const kernels::DecodeResult& found, const DecodeCall& call) {
  const kernels::DecodeModel& model = call.model;
  const Tensor& like = call.like;
  const int64_t R = static_cast<int64_t>(found.lengths.size()), T = found.T;
  const auto fill = [](const Tensor& tensor, const auto& values) {
    const auto convert = [&](auto* to) { std::copy(values.begin(), values.end(), to); };
    void* to = tensor.mutable_data_ptr();
    switch (tensor.scalar_type()) {
      case ScalarType::Long:
        return convert(static_cast<int64_t*>(to));
      case ScalarType::Double:
        return convert(static_cast<double*>(to));
      case ScalarType::Float:
        return convert(static_cast<float*>(to));
      default:
        for (size_t i = 0; i < values.size(); ++i) {
          static_cast<kernels::BFloat16*>(to)[i] =
              kernels::to_bfloat16(static_cast<float>(values[i]));
        }
    }
  };
  const Tensor tokens = allocate(like, {R, T}, ScalarType::Long);
  const Tensor lengths = allocate(like, {R}, ScalarType::Long);
  const Tensor log_probs = allocate(like, {R, T}, state_type(like.scalar_type()));
  const Tensor ranks = allocate(like, {R}, ScalarType::Double);
  const auto extras = [&](bool asked, const std::vector<double>& values, int64_t width) {
    const Tensor tensor = asked ? allocate(like, {R, T, width}) : nothing(like);
    fill(tensor, values);
    return tensor;
  };
  const bool contexts = call.options.states && model.context == kernels::DecodeContext::kAttention;
  const Tensor undefined = allocate(like, {2}, ScalarType::Long);
  fill(tokens, found.tokens);
  fill(lengths, found.lengths);
  fill(log_probs, found.log_probs);
  fill(ranks, found.ranks);
  fill(undefined, std::vector<int64_t>{found.undefined_source, found.undefined_step});
  return {tokens,
          lengths,
          log_probs,
          ranks,
          extras(call.options.attentions, found.attentions, call.sources.S),
          extras(call.options.states, found.hidden, model.P),
          extras(contexts, found.contexts, model.C),
          undefined};
}

}  // namespace

Decoded backend::decode(const DecodeCall& call) {
  kernels::DecodeResult found;
  std::vector<kernels::DecodeMember> members{{&call.model, &call.sources}};
  members.insert(members.end(), call.more.begin(), call.more.end());
  expect_ok(kernels::cpu::decode_sequences(members, call.options, cpu_runtime(), &found));
  return tensors_of(found, call);
}

}  // namespace seq2seq_ext::bindings
