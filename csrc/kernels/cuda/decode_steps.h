// SPDX-License-Identifier: MIT
// The launches of a decode loop's steps.
#pragma once

#include <utility>
#include <vector>

#include "cuda/decode_setup.h"

namespace seq2seq_ext::kernels::cuda {

// The work memory of launchers, the same at every step: what the first asked for.
class StepMemory {
 public:
  explicit StepMemory(const Runtime& outer) : outer_(outer) {}

  // A step begins. No large products: nothing here asks for them, and they would want the outer
  // runtime's context.
  Runtime begin(Runtime runtime) {
    next_ = 0;
    runtime.allocate = take;
    runtime.gemm = nullptr;
    runtime.context = this;
    return runtime;
  }

 private:
  static void* take(int64_t bytes, void* context) {
    auto& self = *static_cast<StepMemory*>(context);
    if (self.next_ == self.pieces_.size()) {
      self.pieces_.emplace_back(bytes, self.outer_.allocate(bytes, self.outer_.context));
    }
    const auto& [size, memory] = self.pieces_[self.next_++];
    return size >= bytes ? memory : nullptr;
  }

  const Runtime& outer_;
  std::vector<std::pair<int64_t, void*>> pieces_;
  size_t next_ = 0;
};

class DecodeSteps {
 public:
  explicit DecodeSteps(const DecodeSetup& setup) : d_(setup), memory_(setup.runtime) {}

  // Reads the states of `parity` and writes the others. Launches and memory are those of every step
  // of this parity.
  Status queue(int parity, const Runtime& outer);

 private:
  Status gather(int parity, const Runtime& runtime) const;
  Status constrain(int parity, const Runtime& runtime) const;
  Status layers(int parity, const Runtime& runtime, const void** hidden) const;
  Status attend(int parity, const void* query, const Runtime& runtime) const;
  Status keep(const void* hidden, const Runtime& runtime) const;
  Status vocabulary(const void* features, const Runtime& runtime) const;
  Status choose(int parity, const Runtime& runtime) const;

  const DecodeSetup& d_;
  StepMemory memory_;
};

}  // namespace seq2seq_ext::kernels::cuda
