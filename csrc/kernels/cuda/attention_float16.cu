// SPDX-License-Identifier: MIT
#include "cuda/attention_launch.cuh"

template seq2seq_ext::kernels::Status seq2seq_ext::kernels::cuda::attention_step_as<
    seq2seq_ext::kernels::cuda::fp16>(const AttentionStepParams&, const Runtime&);
