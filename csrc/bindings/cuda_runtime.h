// SPDX-License-Identifier: MIT
// The services that CUDA kernels take from torch, for the length of one op's call.
#pragma once

#include <memory>

#include "cuda/runtime.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {

// Makes the device of `on` the current one and holds the work memory of what is launched. That may
// be given back before the kernels have run: it is reused in the order of the stream.
class CudaCall {
 public:
  explicit CudaCall(const Tensor& on);
  ~CudaCall();

  const kernels::cuda::Runtime& runtime() const { return runtime_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  kernels::cuda::Runtime runtime_;
};

// What decides which kernel runs on a device.
kernels::cuda::Device cuda_device(int32_t index);

}  // namespace seq2seq_ext::bindings
