// SPDX-License-Identifier: MIT
// The ops on CPU tensors.
#include <cstring>
#include <numeric>

#include "backend.h"
#include "cpu/launch.h"
#include "cpu/packed_weights.h"
#include "cpu_runtime.h"

namespace seq2seq_ext::bindings {
namespace {

// The kernels pack what they save: the entries of the N valid (time, row) pairs first. Nobody reads
// the rest, but an op's results are to be the same bits every time.
void clear_unused(const kernels::SequenceForwardParams& params) {
  const auto& s = params.shape;
  if (!s.lengths || !params.direction[0].saved_gates) return;
  const int64_t valid = std::accumulate(s.lengths, s.lengths + s.B, int64_t{0});
  const auto clear = [&](void* saved, int64_t entry_size) {
    if (saved) {
      std::memset(static_cast<char*>(saved) + valid * entry_size, 0,
                  (s.T * s.B - valid) * entry_size);
    }
  };
  const int64_t size = kernels::size_of(s.dtype), state_size = size == 8 ? 8 : 4;
  for (int d = 0; d < s.directions; ++d) {
    clear(params.direction[d].saved_gates, kernels::num_saved(s.cell) * s.H * size);
    clear(params.direction[d].saved_cells, s.H * state_size);
  }
}

// The address of what freezes (frozen = 1) or lets go weights; see cpu/packed_weights.h. It is
// called past torch, for what is frozen is let go by Python's collector: whatever mode torch is in
// then would catch an op.
int64_t weight_freezer() {
  using Function = void(const void* w_ih, const void* w_hh, const void* w_hr, int frozen);
  Function* const function = [](const void* w_ih, const void* w_hh, const void* w_hr, int frozen) {
    (frozen != 0 ? kernels::cpu::freeze_weights : kernels::cpu::unfreeze_weights)(w_ih, w_hh, w_hr);
  };
  return reinterpret_cast<int64_t>(function);
}

std::string cpu_isa() { return kernels::cpu::isa_name(); }

}  // namespace

namespace backend {

const bool kTakesFloat16 = false;

kernels::Status run(const kernels::SequenceForwardParams& params, const Tensor&) {
  clear_unused(params);
  return kernels::cpu::sequence_forward(params, cpu_runtime());
}

kernels::Status run(const kernels::SequenceBackwardParams& params, const Tensor&) {
  return kernels::cpu::sequence_backward(params, cpu_runtime());
}

kernels::Status run(const kernels::StepParams& params, const Tensor&) {
  return kernels::cpu::step(params, cpu_runtime());
}

kernels::Status run(const kernels::AttentionStepParams& params, const Tensor&) {
  return kernels::cpu::attention_step(params, cpu_runtime());
}

kernels::Status run(const kernels::VocabPickParams& params, const Tensor&) {
  return kernels::cpu::vocab_pick(params, cpu_runtime());
}

kernels::Status run(const kernels::CrossEntropyForwardParams& params, const Tensor&) {
  return kernels::cpu::cross_entropy_forward(params, cpu_runtime());
}

kernels::Status run(const kernels::CrossEntropyBackwardParams& params, const Tensor&) {
  return kernels::cpu::cross_entropy_backward(params, cpu_runtime());
}

}  // namespace backend
}  // namespace seq2seq_ext::bindings

STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, CPU, m) {
  using namespace seq2seq_ext::bindings;
  register_sequence_ops(m);
  register_step_ops(m);
  register_decode_ops(m);
  register_loss_ops(m);
  register_decode_sequences(m);
}

// No tensor tells a device here, so they are not registered for one.
STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&seq2seq_ext::bindings::cpu_isa));
  m.impl("weight_freezer", TORCH_BOX(&seq2seq_ext::bindings::weight_freezer));
}
