// SPDX-License-Identifier: MIT
// The GRU cell (see lstm.h for the conventions). Gate order r, z, n, reset gate applied after the
// recurrent product, as in torch.nn.GRU:
//   r, z = sigmoid(x_part + h_part)   n = tanh(x_part_n + r h_part_n)   h' = (1 - z) n + z h
#pragma once

#include "cells/inline.h"

namespace seq2seq_ext::kernels {

template <class M>
struct GruCell {
  using V = typename M::V;
  static constexpr int kGates = 3;
  static constexpr int kSaved = 4;  // r, z, n, h_part_n
  static constexpr bool kHasCell = false;
  // Reads h_prev, and the last gate's x_part and h_part apart: b_hn is inside the reset product.
  static constexpr bool kSplitHidden = true;

  // x_part: W_ih x + b_ih (+ b_hr, b_hz).  h_part: W_hh h (+ b_hn).
  SEQ2SEQ_EXT_CELL V forward(const V (&x_part)[kGates], const V (&h_part)[kGates], V h_prev, V&,
                             V (&saved)[kSaved]) {
    const V r = M::sigmoid(x_part[0] + h_part[0]);
    const V z = M::sigmoid(x_part[1] + h_part[1]);
    const V n = M::tanh(x_part[2] + r * h_part[2]);
    saved[0] = r;
    saved[1] = z;
    saved[2] = n;
    saved[3] = h_part[2];
    return n + z * (h_prev - n);
  }

  // d_state: the part of h's gradient that does not pass through W_hh (z dh), out.
  // d_gates: dn through x_part, then dr, dz, dn through h_part: gates 1..3 are W_hh's rows in
  // order.
  SEQ2SEQ_EXT_CELL void backward(V dh, const V (&saved)[kSaved], V, V h_prev, V& d_state,
                                 V (&d_gates)[kSaved]) {
    const V one = M::constant(1.0);
    const V r = saved[0], z = saved[1], n = saved[2], h_part_n = saved[3];
    const V dn = dh * (one - z) * (one - n * n);
    d_gates[0] = dn;
    d_gates[1] = dn * h_part_n * r * (one - r);
    d_gates[2] = dh * (h_prev - n) * z * (one - z);
    d_gates[3] = dn * r;
    d_state = dh * z;
  }
};

}  // namespace seq2seq_ext::kernels
