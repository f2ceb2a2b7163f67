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

// Elements of weights in panels; 0: this device's kernels do not read any.
int64_t panel_elements(const kernels::PanelsParams& params);

}  // namespace backend

inline void expect_supported_dtype(const Tensor& tensor, const char* name) {
  if (!backend::kTakesFloat16 && tensor.scalar_type() == ScalarType::Half) {
    fail(name, "float16", "dtype float32, float64 or bfloat16 (seq2seq_ext.ops casts float16)");
  }
}

// Panels of weights of N rows and K columns, as pack_panels makes them.
inline void expect_panels(const Tensor& panels, const Tensor& like, const char* like_name,
                          int64_t N, int64_t K, int gates, const Name& name) {
  const kernels::PanelsParams p{kernel_dtype(like), N, K, gates, nullptr, nullptr};
  const int64_t count = backend::panel_elements(p);
  if (count == 0) fail(name, "a tensor", "None: panels are for the CPU");
  expect_like(panels, like, name, like_name);
  expect_shape(panels, {count}, name);
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
