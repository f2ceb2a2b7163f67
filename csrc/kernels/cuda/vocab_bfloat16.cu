// SPDX-License-Identifier: MIT
#include "cuda/vocab_launch.cuh"

template seq2seq_ext::kernels::Status
seq2seq_ext::kernels::cuda::vocab_pick_as<seq2seq_ext::kernels::cuda::bf16>(const VocabPickParams&,
                                                                            const Runtime&);
