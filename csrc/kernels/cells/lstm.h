// SPDX-License-Identifier: MIT
// The LSTM cell, once, for every backend: M supplies a value type V (a SIMD vector on the CPU, a
// scalar on the GPU) and its elementary functions. Gate order i, f, g, o, as in torch.nn.LSTM:
//   i, f, o = sigmoid(x_part + h_part)   g = tanh(x_part + h_part)   c' = f c + i g   h' = o
//   tanh(c')
#pragma once

#include "cells/inline.h"

namespace seq2seq_ext::kernels {

template <class M>
struct LstmCell {
  using V = typename M::V;
  static constexpr int kGates = 4;
  static constexpr int kSaved = 4;             // i, f, g, o
  static constexpr bool kHasCell = true;       // carries c besides h
  static constexpr bool kSplitHidden = false;  // neither h_prev nor a gate's recurrent part alone

  // x_part: W_ih x + b_ih + b_hh.  h_part: W_hh h.  state: c, updated.  Returns h'; `saved` feeds
  // backward().
  SEQ2SEQ_EXT_CELL V forward(const V (&x_part)[kGates], const V (&h_part)[kGates], V, V& state,
                             V (&saved)[kSaved]) {
    saved[0] = M::sigmoid(x_part[0] + h_part[0]);
    saved[1] = M::sigmoid(x_part[1] + h_part[1]);
    saved[2] = M::tanh(x_part[2] + h_part[2]);
    saved[3] = M::sigmoid(x_part[3] + h_part[3]);
    state = saved[1] * state + saved[0] * saved[2];
    return saved[3] * M::tanh(state);
  }

  // dh: gradient of h'.  state: c', c_prev.  d_state: gradient of c' in, of c out.  Writes the
  // gradients of the gate sums (the same for x_part and h_part) to d_gates.
  SEQ2SEQ_EXT_CELL void backward(V dh, const V (&saved)[kSaved], V c, V c_prev, V& d_state,
                                 V (&d_gates)[kSaved]) {
    const V one = M::constant(1.0);
    const V i = saved[0], f = saved[1], g = saved[2], o = saved[3];
    const V tanh_c = M::tanh(c);
    const V dc = d_state + dh * o * (one - tanh_c * tanh_c);
    d_gates[0] = dc * g * i * (one - i);
    d_gates[1] = dc * c_prev * f * (one - f);
    d_gates[2] = dc * i * (one - g * g);
    d_gates[3] = dh * tanh_c * o * (one - o);
    d_state = dc * f;
  }
};

}  // namespace seq2seq_ext::kernels
