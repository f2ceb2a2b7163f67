// SPDX-License-Identifier: MIT
// Work memory of launchers that are called again and again (for each chunk of a sequence, for each
// product): what one call is done with, the next one gets, since both queue their work on one
// stream.
#pragma once

#include <vector>

#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

class RecycledMemory {
 public:
  explicit RecycledMemory(const Runtime& given) : given_(given), runtime_(given) {
    runtime_.context = this;
    runtime_.allocate = allocate;
    if (given.gemm != nullptr) runtime_.gemm = gemm;
  }
  RecycledMemory(const RecycledMemory&) = delete;

  // For one more call.
  const Runtime& runtime() {
    next_ = 0;
    return runtime_;
  }

 private:
  struct Block {
    int64_t bytes;
    void* memory;
  };

  // The n-th request of every call gets the same block, or a larger one.
  static void* allocate(int64_t bytes, void* context) {
    RecycledMemory& self = *static_cast<RecycledMemory*>(context);
    if (self.next_ == self.blocks_.size()) self.blocks_.push_back({0, nullptr});
    Block& block = self.blocks_[self.next_++];
    if (block.memory == nullptr || bytes > block.bytes) {
      block = {bytes, self.given_.allocate(bytes, self.given_.context)};
    }
    return block.memory;
  }

  static bool gemm(const GemmParams& params, void* stream, void* context) {
    const Runtime& given = static_cast<RecycledMemory*>(context)->given_;
    return given.gemm(params, stream, given.context);
  }

  const Runtime given_;
  Runtime runtime_;
  std::vector<Block> blocks_;
  size_t next_ = 0;
};

}  // namespace seq2seq_ext::kernels::cuda
