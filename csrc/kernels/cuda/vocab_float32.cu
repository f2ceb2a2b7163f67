// SPDX-License-Identifier: MIT
#include "cuda/vocab_launch.cuh"

template seq2seq_ext::kernels::Status seq2seq_ext::kernels::cuda::vocab_pick_as<float>(
    const VocabPickParams&, const Runtime&);
