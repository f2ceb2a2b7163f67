// SPDX-License-Identifier: MIT
#include "cuda/stepwise.cuh"

namespace seq2seq_ext::kernels::cuda {
template StepwiseKernels stepwise_kernels<fp16>();
}  // namespace seq2seq_ext::kernels::cuda
