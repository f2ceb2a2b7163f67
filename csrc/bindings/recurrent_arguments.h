// SPDX-License-Identifier: MIT
// Tensor arguments of the recurrent ops, checked and laid out for a kernel. Nothing here depends on
// the device.
#pragma once

#include <optional>
#include <vector>

#include "common/params.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {

inline kernels::Cell rnn_cell(bool relu) {
  return relu ? kernels::Cell::kRnnRelu : kernels::Cell::kRnnTanh;
}

// The flat list of weights: per direction w_ih, w_hh, [b_ih, b_hh], [w_hr]. Keeps contiguous copies
// alive where needed.
class WeightList {
 public:
  // `inputs`: I. `h` has P as its last dimension, and `h_name` is what the caller calls it. Checks
  // everything against x's dtype and device and against (I, P).
  WeightList(kernels::Cell cell, const std::vector<Tensor>& weights, const Tensor& x,
             int64_t directions, int64_t inputs, const Tensor& h, const char* h_name);

  int64_t hidden() const { return hidden_; }
  kernels::RecurrentWeights direction(int64_t d) const;

  int64_t per_direction() const { return per_direction_; }
  bool has_bias() const { return per_direction_ >= 4; }
  bool has_projection() const { return per_direction_ == 3 || per_direction_ == 5; }

 private:
  std::vector<Tensor> tensors_;
  int64_t per_direction_ = 0;
  int64_t hidden_ = 0;
};

// What a sequence op's forward and backward take alike.
struct SequenceArguments {
  SequenceArguments(kernels::Cell cell, const Tensor& x, const Tensor& h0,
                    const std::optional<Tensor>& c0, const std::vector<Tensor>& weights,
                    const std::optional<Tensor>& lengths, bool reverse);

  kernels::SequenceShape shape;
  WeightList weights;
  Rows x;
  Tensor h0;                      // (D, B, P)
  std::optional<Tensor> c0;       // (D, B, H) state
  std::optional<Tensor> lengths;  // (B)
  ScalarType dtype, state;        // the element types of "dtype" and "state" tensors
};

// The address of element `offset` of a contiguous tensor.
const void* at(const Tensor& tensor, int64_t offset);
void* mutable_at(const Tensor& tensor, int64_t offset);

}  // namespace seq2seq_ext::bindings
