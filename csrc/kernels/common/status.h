// SPDX-License-Identifier: MIT
// How a kernel reports failure: by value. Kernels never throw across their boundary and never exit.
#pragma once

#include <string>
#include <utility>

namespace seq2seq_ext::kernels {

class Status {
 public:
  static Status ok() { return Status(); }
  static Status invalid(std::string message) { return Status(std::move(message)); }

  explicit operator bool() const { return ok_; }
  const std::string& message() const { return message_; }

 private:
  Status() = default;
  explicit Status(std::string message) : ok_(false), message_(std::move(message)) {}

  bool ok_ = true;
  std::string message_;
};

}  // namespace seq2seq_ext::kernels
