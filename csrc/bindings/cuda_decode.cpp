// SPDX-License-Identifier: MIT
// Whole sequences on a GPU.
#include <vector>

#include "cuda/decode.h"
#include "cuda_runtime.h"
#include "decode_call.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

// Two numbers that the host has, in its own memory: who asks for them does not wait for the device.
Tensor pair_of(int64_t first, int64_t second) {
  const int64_t size = 2, stride = 1;
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, &size, &stride, aoti_torch_dtype_int64(),
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  Tensor pair(handle);
  auto* const numbers = static_cast<int64_t*>(pair.mutable_data_ptr());
  numbers[0] = first;
  numbers[1] = second;
  return pair;
}

}  // namespace

Decoded backend::decode(const DecodeCall& call) {
  const Tensor& like = call.like;
  const CudaCall cuda(like);
  const int64_t R = call.sources.B * call.options.results;
  const Tensor lengths = allocate(like, {R}, ScalarType::Long);
  const Tensor ranks = allocate(like, {R}, ScalarType::Double);  // of no value but with beams
  kernels::cuda::DecodeOutput output{};
  output.lengths = static_cast<int64_t*>(lengths.mutable_data_ptr());
  output.ranks = static_cast<double*>(ranks.mutable_data_ptr());
  std::vector<Tensor> rows;
  const bool attends = call.model.context == kernels::DecodeContext::kAttention;
  const auto make_rows = [&](int64_t T, kernels::cuda::DecodeOutput* made) {
    const auto wanted = [&](bool asked, int64_t width) {
      return asked ? allocate(like, {R, T, width}) : nothing(like);
    };
    const bool states = call.options.states;
    rows = {allocate(like, {R, T}, ScalarType::Long),
            allocate(like, {R, T}, state_type(like.scalar_type())),
            wanted(call.options.attentions, call.sources.S), wanted(states, call.model.P),
            wanted(states && attends, call.model.C)};
    made->tokens = static_cast<int64_t*>(rows[0].mutable_data_ptr());
    made->log_probs = rows[1].mutable_data_ptr();
    made->attentions = rows[2].mutable_data_ptr();
    made->hidden = rows[3].mutable_data_ptr();
    made->contexts = rows[4].mutable_data_ptr();
  };
  expect_ok(kernels::cuda::decode_sequences(call.model, call.sources, call.options, cuda.runtime(),
                                            make_rows, &output));
  return {rows[0], lengths, rows[1], ranks,
          rows[2], rows[3], rows[4], pair_of(output.undefined_source, output.undefined_step)};
}

}  // namespace seq2seq_ext::bindings
