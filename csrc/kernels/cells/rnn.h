// SPDX-License-Identifier: MIT
// The plain recurrent cell (see lstm.h for the conventions): h' = tanh(x_part + h_part), or relu.
#pragma once

#include "cells/inline.h"

namespace seq2seq_ext::kernels {

template <class M, bool kRelu>
struct RnnCell {
  using V = typename M::V;
  static constexpr int kGates = 1;
  static constexpr int kSaved = 1;  // h'
  static constexpr bool kHasCell = false;
  static constexpr bool kSplitHidden = false;

  SEQ2SEQ_EXT_CELL V forward(const V (&x_part)[kGates], const V (&h_part)[kGates], V, V&,
                             V (&saved)[kSaved]) {
    const V sum = x_part[0] + h_part[0];
    saved[0] = kRelu ? M::relu(sum) : M::tanh(sum);
    return saved[0];
  }

  SEQ2SEQ_EXT_CELL void backward(V dh, const V (&saved)[kSaved], V, V, V&, V (&d_gates)[kSaved]) {
    d_gates[0] =
        kRelu ? M::where_positive(saved[0], dh) : dh * (M::constant(1.0) - saved[0] * saved[0]);
  }
};

}  // namespace seq2seq_ext::kernels
