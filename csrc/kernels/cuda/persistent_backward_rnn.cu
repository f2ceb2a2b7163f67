// SPDX-License-Identifier: MIT
#include "cuda/persistent_backward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Status backward_rnn_tanh(DType dtype, const BackwardArgs& args, const Plan& plan, int directions,
                         const Runtime& runtime) {
  return launch_backward<RnnCell<Math<float>, false>>("persistent_backward_rnn_tanh", dtype, args,
                                                      plan, directions, runtime);
}

Status backward_rnn_relu(DType dtype, const BackwardArgs& args, const Plan& plan, int directions,
                         const Runtime& runtime) {
  return launch_backward<RnnCell<Math<float>, true>>("persistent_backward_rnn_relu", dtype, args,
                                                     plan, directions, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
