// SPDX-License-Identifier: MIT
#include "cuda/persistent_forward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<ForwardArgs> forward_rnn_tanh(bool bfloat16) {
  return forward_kernel<RnnCell<Math<float>, false>>(bfloat16);
}

Kernel<ForwardArgs> forward_rnn_relu(bool bfloat16) {
  return forward_kernel<RnnCell<Math<float>, true>>(bfloat16);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
