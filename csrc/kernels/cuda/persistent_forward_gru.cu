// SPDX-License-Identifier: MIT
#include "cuda/persistent_forward_kernels.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Kernel<ForwardArgs> forward_gru(bool bfloat16, int unit_tile) {
  return forward_kernel<GruCell<Math<float>>>(bfloat16, unit_tile);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
