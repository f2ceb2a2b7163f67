// SPDX-License-Identifier: MIT
// A launcher's work: queued on runtime.stream until something fails; from then on nothing more is,
// and the first failure is the launcher's status. So launchers read as a list of what they do.
#pragma once

#include <utility>

#include "cuda/gpu/gpu.h"
#include "cuda/launch.h"
#include "cuda/sequence_memory.h"

namespace seq2seq_ext::kernels::cuda {

// The type that sums and cell states of a storage type have.
inline DType sum_type(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// Element `index` of an array; null stays null.
inline const void* at(const void* data, DType dtype, int64_t index) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + index * size_of(dtype);
}
inline void* at(void* data, DType dtype, int64_t index) {
  return data == nullptr ? nullptr : static_cast<char*>(data) + index * size_of(dtype);
}

struct Matrix {
  const void* data;
  int64_t stride_row, stride_column;  // one of them is 1
  Matrix transposed() const { return {data, stride_column, stride_row}; }
};

class Queue {
 public:
  explicit Queue(const Runtime& runtime) : runtime_(runtime), products_(runtime) {}

  const Runtime& runtime() const { return runtime_; }
  const Status& status() const { return status_; }
  explicit operator bool() const { return static_cast<bool>(status_); }

  // Null for no elements, and after a failure.
  void* allocate(int64_t count, DType dtype) {
    if (!status_ || count == 0) return nullptr;
    void* const memory = runtime_.allocate(count * size_of(dtype), runtime_.context);
    if (memory == nullptr) status_ = Status::invalid("out of device memory");
    return memory;
  }

  // Another launcher's work.
  template <class Call>
  void run(const Call& call) {
    if (status_) status_ = call();
  }

  // c (m, n) = a (m, k) @ b (k, n), or c += it. `sums`: c has the sum type, else `dtype`.
  void product(DType dtype, int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, void* c,
               int64_t c_stride, bool accumulate, bool sums) {
    GemmParams params{};
    params.dtype = dtype;
    params.m = m, params.n = n, params.k = k;
    params.a = a.data, params.a_stride_m = a.stride_row, params.a_stride_k = a.stride_column;
    params.b = b.data, params.b_stride_k = b.stride_row, params.b_stride_n = b.stride_column;
    params.c = c, params.c_stride_m = c_stride;
    params.accumulate = accumulate;
    params.wide = sums && sum_type(dtype) != dtype;
    run([&] { return large_product(params, products_.runtime()); });
  }

  template <class... P, class... A>
  void launch(const char* name, void (*kernel)(P...), dim3 grid, unsigned threads, A&&... args) {
    if (!status_) return;
    gpu::Config config;
    config.grid = grid;
    config.block = dim3(threads);
    config.stream = static_cast<cudaStream_t>(runtime_.stream);
    const cudaError_t error = gpu::launch(config, name, kernel, std::forward<A>(args)...);
    if (error != cudaSuccess) status_ = Status::invalid(gpu::launch_failure(name, error));
  }

 private:
  const Runtime& runtime_;
  RecycledMemory products_;
  Status status_ = Status::ok();
};

inline unsigned blocks_of(int64_t count, int64_t threads) {
  return static_cast<unsigned>((count + threads - 1) / threads);
}

}  // namespace seq2seq_ext::kernels::cuda
