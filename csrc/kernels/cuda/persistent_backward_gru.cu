// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<BackwardArgs> backward_gru(bool bfloat16, bool wide) {
  return backward_kernel<GruCell<Math<float>>>(bfloat16, wide);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
