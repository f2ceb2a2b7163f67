// SPDX-License-Identifier: MIT
// The ops on CUDA tensors.
#include "backend.h"
#include "cuda/launch.h"
#include "cuda_runtime.h"

// CPU in the library that tests run under host execution.
#ifndef SEQ2SEQ_EXT_DISPATCH_KEY
#define SEQ2SEQ_EXT_DISPATCH_KEY CUDA
#endif

namespace seq2seq_ext::bindings {
namespace {

template <class Params>
kernels::Status queue(kernels::Status (*launch)(const Params&, const kernels::cuda::Runtime&),
                      const Params& params, const Tensor& on) {
  const CudaCall call(on);
  return launch(params, call.runtime());
}

}  // namespace

namespace backend {

const bool kTakesFloat16 = true;

kernels::Status run(const kernels::SequenceForwardParams& params, const Tensor& on) {
  return queue(kernels::cuda::sequence_forward, params, on);
}

kernels::Status run(const kernels::SequenceBackwardParams& params, const Tensor& on) {
  return queue(kernels::cuda::sequence_backward, params, on);
}

kernels::Status run(const kernels::StepParams& params, const Tensor& on) {
  return queue(kernels::cuda::step, params, on);
}

kernels::Status run(const kernels::AttentionStepParams& params, const Tensor& on) {
  return queue(kernels::cuda::attention_step, params, on);
}

kernels::Status run(const kernels::VocabPickParams& params, const Tensor& on) {
  return queue(kernels::cuda::vocab_pick, params, on);
}

kernels::Status run(const kernels::CrossEntropyForwardParams& params, const Tensor& on) {
  return queue(kernels::cuda::cross_entropy_forward, params, on);
}

kernels::Status run(const kernels::CrossEntropyBackwardParams& params, const Tensor& on) {
  return queue(kernels::cuda::cross_entropy_backward, params, on);
}

int64_t panel_elements(const kernels::PanelsParams&) { return 0; }

}  // namespace backend
}  // namespace seq2seq_ext::bindings

STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, SEQ2SEQ_EXT_DISPATCH_KEY, m) {
  using namespace seq2seq_ext::bindings;
  register_sequence_ops(m);
  register_step_ops(m);
  register_decode_ops(m);
  register_loss_ops(m);
  register_decode_sequences(m);
}

// No tensor tells a device here, so it is not registered for one.
STABLE_TORCH_LIBRARY_IMPL(SEQ2SEQ_EXT_NAMESPACE, CompositeExplicitAutograd, m) {
  seq2seq_ext::bindings::register_plan(m);
}
