// SPDX-License-Identifier: MIT
#include "cuda/persistent_forward_kernels.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<ForwardArgs> forward_rnn_tanh(bool bfloat16, int unit_tile) {
  return forward_kernel<RnnCell<Math<float>, false>>(bfloat16, unit_tile);
}

Kernel<ForwardArgs> forward_rnn_relu(bool bfloat16, int unit_tile) {
  return forward_kernel<RnnCell<Math<float>, true>>(bfloat16, unit_tile);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
