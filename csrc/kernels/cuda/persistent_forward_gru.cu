// SPDX-License-Identifier: MIT
#include "cuda/persistent_forward.cuh"

namespace seq2seq_ext::kernels::cuda::persistent {

Status forward_gru(DType dtype, const ForwardArgs& args, const Plan& plan, int directions,
                   const Runtime& runtime) {
  using Cell = GruCell<Math<float>>;
  return launch("persistent_forward_gru",
                dtype == DType::kBFloat16 ? persistent_forward_kernel<bf16, Cell>
                                          : persistent_forward_kernel<fp16, Cell>,
                args, plan, directions, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda::persistent
