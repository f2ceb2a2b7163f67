// SPDX-License-Identifier: MIT
#include "cuda/persistent_forward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<ForwardArgs> forward_lstm(bool bfloat16) {
  return forward_kernel<LstmCell<Math<float>>>(bfloat16);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
