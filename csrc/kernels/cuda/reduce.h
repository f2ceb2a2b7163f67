// SPDX-License-Identifier: MIT
// Sums over rows, in an order that depends on the number of rows alone.
#pragma once

#include "cuda/sequence_queue.h"

namespace seq2seq_ext::kernels::cuda {

// Gradients of both biases: column sums of d_gates (rows, num_saved*H) dtype. Either may be null.
// Work memory: at most 256 * num_saved*H sums.
void bias_gradients(Queue& queue, Cell cell, DType dtype, const void* d_gates, int64_t rows,
                    int64_t H, void* b_ih, void* b_hh);

}  // namespace seq2seq_ext::kernels::cuda
