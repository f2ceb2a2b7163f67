// SPDX-License-Identifier: MIT
#include "cuda/gemm.cuh"

namespace seq2seq_ext::kernels::cuda {

template Status gemm_blocks<float>(const GemmLaunch&, void*);

}  // namespace seq2seq_ext::kernels::cuda
