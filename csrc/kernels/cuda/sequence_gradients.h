// SPDX-License-Identifier: MIT
// What follows the backward recurrence: the parameters' gradients and dx, as large products of the
// gates' gradients.
#pragma once

#include "cuda/sequence_rows.h"

namespace seq2seq_ext::kernels::cuda {

// What the recurrence leaves, per direction (see BackwardChunk).
struct GateGradients {
  const SequenceBackwardParams* params;
  const void* d_gates[kMaxDirections];   // (T, B, num_saved*H) dtype
  const void* d_hidden[kMaxDirections];  // (T, B, P) dtype; projection only
};

// Fills the gradients that params.direction[].grads asks for. Work memory: for 16-bit types each
// gradient in float32; up to kPieceBytes of x, of y and of the unprojected outputs.
void parameter_gradients(Queue& queue, const GateGradients& given);

// Fills params.dx, if it is wanted. Work memory: two directions and a 16-bit type, kPieceBytes;
// GRU, a copy of W_ih a direction.
void input_gradient(Queue& queue, const GateGradients& given);

}  // namespace seq2seq_ext::kernels::cuda
