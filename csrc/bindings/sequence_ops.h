// SPDX-License-Identifier: MIT
// The sequence ops, forward and backward, for any device: the caller brings the function that runs
// the kernel.
#pragma once

#include <optional>
#include <vector>

#include "common/status.h"
#include "recurrent_arguments.h"

namespace seq2seq_ext::bindings {

using RunForward = kernels::Status (*)(const kernels::SequenceForwardParams&);
using RunBackward = kernels::Status (*)(const kernels::SequenceBackwardParams&);

struct SequenceResults {
  Tensor y;            // (T, B, D*P)
  Tensor h_n;          // (D, B, P)
  Tensor c_n;          // (D, B, H) in c0's dtype; LSTM only, else empty
  Tensor saved_gates;  // (D, T*B, num_saved*H), empty without `save`
  Tensor saved_cells;  // (D, T*B, H) state; LSTM with `save` only, else empty
};

SequenceResults sequence_forward(kernels::Cell cell, const Tensor& x, const Tensor& h0,
                                 const std::optional<Tensor>& c0,
                                 const std::vector<Tensor>& weights,
                                 const std::optional<Tensor>& lengths, bool reverse, bool save,
                                 RunForward run);

// What the forward gave and what autograd brings.
struct SequenceGradInputs {
  std::optional<Tensor> dy, dh_n, dc_n;
  Tensor y, saved_gates;
  std::optional<Tensor> saved_cells;
};

// Bits of `wanted`: 0 x, 1 h0, 2 c0, 3 + n weights[n]. A gradient that is not wanted comes back
// with shape (0,).
struct SequenceGrads {
  Tensor dx, dh0, dc0;
  std::vector<Tensor> dweights;
};

SequenceGrads sequence_backward(kernels::Cell cell, const SequenceGradInputs& given,
                                const Tensor& x, const Tensor& h0, const std::optional<Tensor>& c0,
                                const std::vector<Tensor>& weights,
                                const std::optional<Tensor>& lengths, bool reverse, int64_t wanted,
                                RunBackward run);

}  // namespace seq2seq_ext::bindings
