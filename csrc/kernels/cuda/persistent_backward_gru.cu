// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward_kernels.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<BackwardArgs> backward_gru(bool bfloat16, int unit_tile) {
  return backward_kernel<GruCell<Math<float>>>(bfloat16, unit_tile);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
