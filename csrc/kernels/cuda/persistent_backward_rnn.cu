// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward_kernels.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<BackwardArgs> backward_rnn_tanh(bool bfloat16, int unit_tile) {
  return backward_kernel<RnnCell<Math<float>, false>>(bfloat16, unit_tile);
}

Kernel<BackwardArgs> backward_rnn_relu(bool bfloat16, int unit_tile) {
  return backward_kernel<RnnCell<Math<float>, true>>(bfloat16, unit_tile);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
