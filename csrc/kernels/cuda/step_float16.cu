// SPDX-License-Identifier: MIT
#include "cuda/step.cuh"

namespace seq2seq_ext::kernels::cuda {

template Status step_gates(const StepParams&, fp16*, const Runtime&);

}  // namespace seq2seq_ext::kernels::cuda
