// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<BackwardArgs> backward_lstm(bool bfloat16, bool wide) {
  return backward_kernel<LstmCell<Math<float>>>(bfloat16, wide);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
