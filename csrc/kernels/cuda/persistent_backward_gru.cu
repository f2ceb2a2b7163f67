// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Status backward_gru(DType dtype, const BackwardArgs& args, const Plan& plan, int directions,
                    const Runtime& runtime) {
  return launch_backward<GruCell<Math<float>>>("persistent_backward_gru", dtype, args, plan,
                                               directions, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
