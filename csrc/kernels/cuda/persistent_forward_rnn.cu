// SPDX-License-Identifier: MIT
#include "cuda/persistent_forward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Status forward_rnn_tanh(DType dtype, const ForwardArgs& args, const Plan& plan, int directions,
                        const Runtime& runtime) {
  using Cell = RnnCell<Math<float>, false>;
  return launch("persistent_forward_rnn_tanh",
                dtype == DType::kBFloat16 ? persistent_forward_kernel<bf16, Cell>
                                          : persistent_forward_kernel<fp16, Cell>,
                args, plan, directions, runtime);
}

Status forward_rnn_relu(DType dtype, const ForwardArgs& args, const Plan& plan, int directions,
                        const Runtime& runtime) {
  using Cell = RnnCell<Math<float>, true>;
  return launch("persistent_forward_rnn_relu",
                dtype == DType::kBFloat16 ? persistent_forward_kernel<bf16, Cell>
                                          : persistent_forward_kernel<fp16, Cell>,
                args, plan, directions, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
