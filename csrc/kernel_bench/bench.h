// SPDX-License-Identifier: MIT
// kernel_bench <kernel> [name=value ...]: checks a CUDA kernel against the CPU kernel in float64,
// then, on a GPU, times it. A case is one function, registered by BENCH_CASE in a file of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/runtime.h"
#include "common/status.h"
#include "device.h"

namespace seq2seq_ext::kernel_bench {

using kernels::DType;

// name=value words. A name that no one asked for is an error: see unused().
class Arguments {
 public:
  explicit Arguments(const std::vector<std::string>& words);
  int64_t size(const std::string& name, int64_t otherwise);
  std::string text(const std::string& name, const std::string& otherwise);
  bool flag(const std::string& name, bool otherwise = false) { return size(name, otherwise) != 0; }
  DType dtype(DType otherwise = DType::kFloat32);  // dtype=float32|float64|bfloat16|float16
  std::string unused() const;

 private:
  std::map<std::string, std::string> values_;
  std::map<std::string, bool> asked_;
};

// A tensor: its values in float64, each representable in the dtype, and a copy on the device.
class Array {
 public:
  Array(DType dtype, int64_t count);               // an output: poisoned
  Array(DType dtype, std::vector<double> values);  // rounded to the dtype
  Array(Array&&) = default;

  void* data() const { return memory_.get(); }
  const std::vector<double>& values() const { return values_; }  // what was given, rounded
  const double* oracle() const { return values_.data(); }        // the CPU kernel's input
  std::vector<double> download() const;                          // what the device holds now
  int64_t count() const { return count_; }
  DType dtype() const { return dtype_; }

 private:
  DType dtype_;
  int64_t count_;
  std::vector<double> values_;
  std::unique_ptr<void, void (*)(void*)> memory_;
};

// Integers (lengths, indices, bit masks) on the device.
template <class T>
class Integers {
 public:
  explicit Integers(std::vector<T> values) : values_(std::move(values)), memory_(nullptr, release) {
    const int64_t bytes = static_cast<int64_t>(values_.size() * sizeof(T));
    memory_.reset(allocate(bytes));
    to_device(memory_.get(), values_.data(), bytes);
  }
  explicit Integers(int64_t count)
      : values_(count), memory_(allocate(count * sizeof(T)), release) {}
  T* data() const { return static_cast<T*>(memory_.get()); }
  const std::vector<T>& values() const { return values_; }
  std::vector<T> download() const {
    std::vector<T> result(values_.size());
    to_host(result.data(), memory_.get(), static_cast<int64_t>(result.size() * sizeof(T)));
    return result;
  }

 private:
  std::vector<T> values_;
  std::unique_ptr<void, void (*)(void*)> memory_;
};

struct Bench {
  Arguments args;
  std::mt19937_64 random;
  kernels::cuda::Runtime runtime;
  bool failed = false;
  bool timed = true;

  Array normal(DType dtype, int64_t count, double scale = 1.0);

  // |got - expected| <= units * eps(dtype) * max(1, max |expected|) everywhere; prints a line.
  // NaN is wrong unless both are NaN.
  void check(const std::string& name, const std::vector<double>& got,
             const std::vector<double>& expected, DType dtype, double units);
  void check(const std::string& name, const Array& got, const std::vector<double>& expected,
             double units) {
    check(name, got.download(), expected, got.dtype(), units);
  }
  void check_true(const std::string& name, bool right);

  // Runs a launcher and waits; throws its message if it declines.
  void launch(const std::function<kernels::Status()>& launcher);

  // Prints median time, GB/s and TFLOP/s of a launcher; nothing in host execution or if not
  // `timed`.
  void time(const std::function<kernels::Status()>& launcher, double bytes, double flops);
};

struct Case {
  const char* name;
  const char* usage;  // the names it takes, with their defaults
  void (*run)(Bench&);
};
std::vector<Case>& cases();

struct Register {
  Register(const char* name, const char* usage, void (*run)(Bench&)) {
    cases().push_back({name, usage, run});
  }
};
#define BENCH_CASE(name, usage)                                                                 \
  static void run_##name(::seq2seq_ext::kernel_bench::Bench&);                                  \
  static const ::seq2seq_ext::kernel_bench::Register register_##name(#name, usage, run_##name); \
  static void run_##name(::seq2seq_ext::kernel_bench::Bench& bench)

// Relative spacing of a dtype's values.
double epsilon(DType dtype);

}  // namespace seq2seq_ext::kernel_bench
