// SPDX-License-Identifier: MIT
// The kernels behind the ops: one set for each type of device, declared here, defined in
// cpu_ops.cpp and in cuda_ops.cpp. A library links one of the two, so the ops themselves
// (*_ops.cpp) are the same for both and ask nowhere which device it is.
#pragma once

#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "common/params.h"
#include "common/status.h"

// The namespace of the ops, torch.ops.<this>. Another one lets a test load a second library.
#ifndef SEQ2SEQ_EXT_NAMESPACE
#define SEQ2SEQ_EXT_NAMESPACE seq2seq_ext
#endif

namespace seq2seq_ext::bindings {

namespace backend {

extern const bool kTakesFloat16;

// Runs a kernel, on a GPU by queueing it: on the device of `on`, one of the op's tensors.
kernels::Status run(const kernels::SequenceForwardParams& params, const Tensor& on);
kernels::Status run(const kernels::SequenceBackwardParams& params, const Tensor& on);
kernels::Status run(const kernels::StepParams& params, const Tensor& on);
kernels::Status run(const kernels::AttentionStepParams& params, const Tensor& on);
kernels::Status run(const kernels::VocabPickParams& params, const Tensor& on);
kernels::Status run(const kernels::CrossEntropyForwardParams& params, const Tensor& on);
kernels::Status run(const kernels::CrossEntropyBackwardParams& params, const Tensor& on);

}  // namespace backend

inline void expect_supported_dtype(const Tensor& tensor, const char* name) {
  if (!backend::kTakesFloat16 && tensor.scalar_type() == ScalarType::Half) {
    fail(name, "float16", "dtype float32, float64 or bfloat16 (seq2seq_ext.ops casts float16)");
  }
}

// Each names the ops of one family to torch.
using Library = torch::stable::detail::StableLibrary;
void register_sequence_ops(Library& m);
void register_step_ops(Library& m);
void register_decode_ops(Library& m);
void register_loss_ops(Library& m);
void register_decode_sequences(Library& m);
void register_plan(Library& m);  // CUDA only

}  // namespace seq2seq_ext::bindings
