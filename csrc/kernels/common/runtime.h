// SPDX-License-Identifier: MIT
// The services a kernel takes from its host: threads and large matrix products. Under torch they
// are torch's own thread pool and BLAS (so there is one pool in the process, and
// torch.set_num_threads holds); standalone they are default_runtime().
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace seq2seq_ext::kernels {

// c = a @ b, or c += a @ b. Strides in elements; each operand has one unit stride, so it is a
// matrix or its transpose.
struct GemmParams {
  DType dtype;
  int64_t m, n, k;
  const void* a;  // (m, k)
  int64_t a_stride_m, a_stride_k;
  const void* b;  // (k, n)
  int64_t b_stride_k, b_stride_n;
  void* c;  // (m, n)
  int64_t c_stride_m;
  bool accumulate;
  bool wide = false;  // c is float32 while dtype is bfloat16 or float16 (CUDA only)
};

struct Runtime {
  int num_threads = 1;

  // Splits [0, count) into contiguous chunks of one size (the last may be smaller), at most
  // num_threads of them, and calls task(begin, end, context) for each, concurrently. Called inside
  // another parallel region it makes one chunk.
  void (*parallel_for)(int64_t count, void (*task)(int64_t begin, int64_t end, void* context),
                       void* context) = nullptr;

  // The host's BLAS; null where there is none. Returns false if it declined (the kernel then uses
  // its own product).
  bool (*gemm)(const GemmParams& params) = nullptr;
};

// std::thread for the threads, no BLAS. num_threads <= 0: one per core.
Runtime default_runtime(int num_threads);

}  // namespace seq2seq_ext::kernels
