// SPDX-License-Identifier: MIT
// Whole sequences on a GPU.
#include <vector>

#include "cuda/decode.h"
#include "cuda_runtime.h"
#include "decode_call.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

// Two numbers that the host has.
Tensor pair_of(const Tensor& like, int64_t first, int64_t second) {
  Tensor pair = zeroed(allocate(like, {2}, ScalarType::Long));
  const int64_t numbers[] = {first, second};
  for (int i = 0; i < 2 && first >= 0; ++i) {
    Tensor element = torch::stable::narrow(pair, 0, i, 1);
    torch::stable::fill_(element, static_cast<double>(numbers[i]));
  }
  if (first < 0) torch::stable::fill_(pair, -1);
  return pair;
}

}  // namespace

Decoded backend::decode(const DecodeCall& call) {
  const Tensor& like = call.like;
  const CudaCall cuda(like);
  const int64_t R = call.sources.B * call.options.results;
  const Tensor lengths = allocate(like, {R}, ScalarType::Long);
  const Tensor ranks = zeroed(allocate(like, {R}, ScalarType::Double));
  kernels::cuda::DecodeOutput output{};
  output.lengths = static_cast<int64_t*>(lengths.mutable_data_ptr());
  output.ranks = static_cast<double*>(ranks.mutable_data_ptr());
  std::vector<Tensor> rows;
  const auto make_rows = [&](int64_t T, kernels::cuda::DecodeOutput* made) {
    rows = {allocate(like, {R, T}, ScalarType::Long),
            allocate(like, {R, T}, state_type(like.scalar_type()))};
    made->tokens = static_cast<int64_t*>(rows[0].mutable_data_ptr());
    made->log_probs = rows[1].mutable_data_ptr();
  };
  expect_ok(kernels::cuda::decode_sequences(call.model, call.sources, call.options, cuda.runtime(),
                                            make_rows, &output));
  const Tensor none = nothing(like);
  return {rows[0], lengths, rows[1], ranks,
          none,    none,    none,    pair_of(like, output.undefined_source, output.undefined_step)};
}

}  // namespace seq2seq_ext::bindings
