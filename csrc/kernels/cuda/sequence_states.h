// SPDX-License-Identifier: MIT
// The states before and after a recurrence, of all directions in one launch each.
#pragma once

#include "cuda/recurrence.h"
#include "cuda/sequence_queue.h"

namespace seq2seq_ext::kernels::cuda {

// h0, c0 -> h_n, c_n, where the forward recurrence keeps its states.
void initial_states(Queue& queue, const SequenceForwardParams& params);

// dh_n, dc_n -> dh, dc of the backward recurrence.
void final_gradients(Queue& queue, const BackwardChunk& chunk);

// dh, dc of the recurrence -> dh0, dc0, where they are wanted.
void initial_gradients(Queue& queue, const BackwardChunk& chunk);

}  // namespace seq2seq_ext::kernels::cuda
