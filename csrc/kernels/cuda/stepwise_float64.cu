// SPDX-License-Identifier: MIT
#include "cuda/stepwise.cuh"

namespace seq2seq_ext::kernels::cuda {
template StepwiseKernels stepwise_kernels<double>();
}  // namespace seq2seq_ext::kernels::cuda
