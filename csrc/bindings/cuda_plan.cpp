// SPDX-License-Identifier: MIT
// Which kernel a sequence would run on, for whoever asks; nothing is run.
#include <tuple>

#include "backend.h"
#include "cuda/recurrence.h"
#include "recurrent_arguments.h"

namespace seq2seq_ext::bindings {
namespace {

using kernels::Cell;

Cell cell_of(const std::string& name) {
  if (name == "lstm") return Cell::kLstm;
  if (name == "gru") return Cell::kGru;
  if (name == "tanh" || name == "relu") return rnn_cell(name == "relu");
  fail("cell", "'" + name + "'", "'lstm', 'gru', 'tanh' or 'relu'");
}

// The order of `cut` is that of seq2seq_ext/_plan.py.
std::tuple<bool, std::string, std::vector<int64_t>> sequence_plan(
    const std::string& cell, ScalarType dtype, int64_t T, int64_t B, int64_t I, int64_t H,
    int64_t P, int64_t directions, bool backward, int64_t arch, int64_t sms,
    int64_t shared_per_block) {
  kernels::SequenceShape shape{};
  shape.cell = cell_of(cell);
  shape.dtype = kernel_dtype(dtype);
  shape.T = T;
  shape.B = B;
  shape.I = I;
  shape.H = H;
  shape.P = P;
  shape.directions = static_cast<int>(directions);
  shape.reverse[1] = true;
  const kernels::cuda::Device device{static_cast<int>(arch), static_cast<int>(sms),
                                     shared_per_block};
  const auto plan = backward ? kernels::cuda::plan_backward(shape, device)
                             : kernels::cuda::plan_forward(shape, device);
  return {plan.persistent,
          plan.reason,
          {plan.unit_blocks, plan.batch_blocks, plan.unit_tile, plan.batch_tile, plan.shared_bytes,
           plan.chunk_steps}};
}

}  // namespace

void register_plan(Library& m) { m.impl("sequence_plan", TORCH_BOX(&sequence_plan)); }

}  // namespace seq2seq_ext::bindings
