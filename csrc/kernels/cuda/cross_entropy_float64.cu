// SPDX-License-Identifier: MIT
#include "cuda/cross_entropy_gradients.cuh"
#include "cuda/cross_entropy_sums.cuh"

namespace seq2seq_ext::kernels::cuda {
template Status logit_sums<double>(const LogitSums&, const Runtime&);
template Status logit_gradients<double>(const LogitGradients&, const Runtime&);
}  // namespace seq2seq_ext::kernels::cuda
