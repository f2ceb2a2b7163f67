// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<BackwardArgs> backward_rnn_tanh(bool bfloat16, bool wide) {
  return backward_kernel<RnnCell<Math<float>, false>>(bfloat16, wide);
}

Kernel<BackwardArgs> backward_rnn_relu(bool bfloat16, bool wide) {
  return backward_kernel<RnnCell<Math<float>, true>>(bfloat16, wide);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
