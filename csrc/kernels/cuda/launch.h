// SPDX-License-Identifier: MIT
// Host entry points of the CUDA kernels, the counterpart of cpu/launch.h. Every pointer in the
// params, lengths included, is device memory. A launcher queues its work on runtime.stream and
// returns at once: no synchronisation, no host read of device memory, nothing allocated but by
// runtime.allocate, so that all of them can be captured in a CUDA graph. Values that only the
// device knows (lengths) are clamped by the kernels, not checked.
#pragma once

#include "common/params.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

Status sequence_forward(const SequenceForwardParams& params, const Runtime& runtime);
Status sequence_backward(const SequenceBackwardParams& params, const Runtime& runtime);
Status step(const StepParams& params, const Runtime& runtime);
Status attention_step(const AttentionStepParams& params, const Runtime& runtime);
Status vocab_pick(const VocabPickParams& params, const Runtime& runtime);
Status cross_entropy_forward(const CrossEntropyForwardParams& params, const Runtime& runtime);
Status cross_entropy_backward(const CrossEntropyBackwardParams& params, const Runtime& runtime);

// The project's own matrix product: any strides (one of each operand's is 1), any dtype, fixed
// order of summation; also what runs where runtime.gemm is null or declines.
Status gemm(const GemmParams& params, const Runtime& runtime);

// runtime.gemm if it takes the product, else gemm() above.
Status large_product(const GemmParams& params, const Runtime& runtime);

}  // namespace seq2seq_ext::kernels::cuda
