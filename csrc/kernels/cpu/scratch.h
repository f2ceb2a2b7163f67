// SPDX-License-Identifier: MIT
// Work memory for the length of a call, taken from blocks that earlier calls gave back: fresh pages
// cost more to fault in than a short sequence costs to compute.
#pragma once

#include <cstddef>
#include <cstdint>

namespace seq2seq_ext::kernels::cpu {

// Uninitialised, 64-byte aligned. Thread-safe: each Scratch has its block to itself.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const { return data_; }

 private:
  void* data_;
  size_t capacity_;
};

template <class T>
class ScratchArray {
 public:
  explicit ScratchArray(int64_t count) : scratch_(static_cast<size_t>(count) * sizeof(T)) {}
  T* data() const { return static_cast<T*>(scratch_.data()); }
  T& operator[](int64_t i) const { return data()[i]; }

 private:
  Scratch scratch_;
};

}  // namespace seq2seq_ext::kernels::cpu
