// SPDX-License-Identifier: MIT
// Included by attention_<dtype>.cu.
#pragma once

#include <algorithm>
#include <string>

#include "cuda/attention.cuh"
#include "cuda/attention_launch.h"
#include "cuda/rows_product.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

inline Status attention_error(cudaError_t error) {
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure("attention_step", error));
}

template <class T>
bool chunks_aligned(const void* base, int64_t stride_outer, int64_t stride_inner) {
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && stride_outer % kChunkK<T> == 0 &&
         stride_inner % kChunkK<T> == 0;
}

// Work memory; false where there is none.
template <class T>
bool allocate_attention(const AttentionStepParams& p, const Runtime& runtime,
                        AttentionWork<AccOf<T>>& work, AccOf<T>*& query) {
  using A = AccOf<T>;
  bool failed = false;
  const auto take = [&](auto*& pointer, int64_t count) {
    void* memory = runtime.allocate(count * int64_t(sizeof(*pointer)), runtime.context);
    pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(memory);
    failed |= memory == nullptr;
  };
  if (p.w_query != nullptr) {
    work.query_stride = (p.A + kChunkK<A> - 1) / kChunkK<A> * kChunkK<A>;
    take(query, p.B * work.query_stride);
    work.query = query;
  }
  if (work.parts > 1) {
    take(work.softmax, p.B * work.parts);
    take(work.exps, p.B * work.parts * kPart);
    take(work.contexts, p.B * work.parts * p.C);
  }
  return !failed;
}

template <class T>
Status project_query(const AttentionStepParams& p, const AttentionWork<AccOf<T>>& work,
                     AccOf<T>* query, const Runtime& runtime) {
  RowsProductParams product{};
  product.dtype = p.dtype;
  product.B = p.B, product.N = p.A, product.K = p.Q;
  product.x = p.query;
  product.x_stride_b = p.Q;
  product.w = p.w_query;
  product.y = query;
  product.y_stride_b = work.query_stride;
  product.wide = sizeof(T) == 2;
  return rows_product(product, runtime);
}

}  // namespace

template <class T>
Status attention_step_as(const AttentionStepParams& p, const Runtime& runtime) {
  using A = AccOf<T>;
  AttentionWork<A> work{};
  work.parts = std::max<int64_t>(1, (p.S + kPart - 1) / kPart);
  work.keys_aligned = chunks_aligned<T>(p.keys, p.keys_stride_b, p.keys_stride_s);
  work.values_aligned = chunks_aligned<T>(p.values, p.values_stride_b, p.values_stride_s);
  work.rest_aligned = chunks_aligned<T>(p.query, p.Q, p.Q) && chunks_aligned<T>(p.v, 0, 0);
  const int64_t blocks = p.B * work.parts, merge_blocks = attention_merge_blocks(p);
  if (std::max(blocks, p.B * merge_blocks) > INT32_MAX) {
    return Status::invalid("attention_step: too many rows");
  }
  A* query = nullptr;
  if (!allocate_attention<T>(p, runtime, work, query)) {
    return Status::invalid("attention_step: out of device memory");
  }
  if (query != nullptr) {
    if (const Status status = project_query<T>(p, work, query, runtime); !status) return status;
  }
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(kAttentionThreads);
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const Status status =
      attention_error(p.score == AttentionScore::kAdditive
                          ? GPU_LAUNCH(config, (attention_kernel<T, true>), p, work)
                          : GPU_LAUNCH(config, (attention_kernel<T, false>), p, work));
  if (!status || work.parts == 1) return status;
  config.grid = dim3(static_cast<unsigned>(p.B * merge_blocks));
  return attention_error(GPU_LAUNCH(config, attention_merge_kernel<T>, p, work, merge_blocks));
}

}  // namespace seq2seq_ext::kernels::cuda
