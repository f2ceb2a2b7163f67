// SPDX-License-Identifier: MIT
#include "cuda/vocab.cuh"
#include "cuda/vocab_merge.h"
#include "cuda/vocab_sort.cuh"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kMergeWarps = 4;

// From a row's softmax part to log-probabilities.
template <class A>
struct Finish {
  const VocabPickParams& p;
  const VocabWork<A>& work;
  const int64_t row;
  bool defined;  // else: a NaN, a +inf, or nothing but -inf
  A max;
  double log_sum;

  __device__ Finish(const SoftmaxPart<A>& all, const VocabPickParams& p, const VocabWork<A>& work,
                    int64_t row)
      : p(p),
        work(work),
        row(row),
        defined(all.sum > A(0)),
        max(all.max),
        log_sum(log(double(all.sum))) {}

  __device__ A log_prob(A logit) const {
    return defined ? A((double(logit) - double(max)) - log_sum) : A(NAN);
  }

  // The row's k-th word: what it was picked by, and its logit.
  __device__ void write(int64_t k, A key, A logit, int64_t index) const {
    if (!(key > minus_infinity<A>())) {
      logit = minus_infinity<A>();
      if (p.plain) index = -1;
    }
    static_cast<A*>(p.log_probs)[row * p.K + k] = log_prob(logit);
    p.indices[row * p.K + k] = defined ? index : k;
  }

  // Where `logit` may be one after the penalty.
  __device__ void write_listed(int64_t k, A logit, int64_t index) const {
    A plain = logit;
    if (work.unpenalized != nullptr && index < p.V) {
      const int64_t words = (p.V + 31) / 32;
      const int32_t* const seen = p.seen + (work.first_row + row) * words;
      if (seen[index / 32] >> (index % 32) & 1) plain = work.unpenalized[row * p.V + index];
    }
    write(k, logit, plain, index);
    if (p.scores != nullptr) static_cast<A*>(p.scores)[row * p.K + k] = log_prob(logit);
  }
};

// A warp a row.
template <class A>
__global__ void __launch_bounds__(32 * kMergeWarps, 4)
    merge_best_kernel(const __grid_constant__ VocabPickParams p,
                      const __grid_constant__ VocabWork<A> work) {
  const int64_t row = int64_t(blockIdx.x) * kMergeWarps + threadIdx.x / 32;
  if (row >= p.B) return;
  const SoftmaxPart<A> all = warp_merge_parts(work.parts + row * work.slices, work.slices);
  Candidate<A> best = Candidate<A>::none();
  for (int64_t i = threadIdx.x % 32; i < work.slices; i += 32) {
    const Candidate<A> other = work.best[row * work.slices + i];
    if (other.beats(best)) best = other;
  }
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) {
    Finish<A>(all, p, work, row).write(0, best.key, best.logit, best.index);
  }
}

// A block a row: each warp merges the lists of some slices, the first then those of the warps.
template <class A>
__global__ void __launch_bounds__(32 * kMergeWarps, 4)
    merge_lists_kernel(const __grid_constant__ VocabPickParams p,
                       const __grid_constant__ VocabWork<A> work) {
  GPU_SHARED(A, values, [kMergeWarps * kMaxList]);
  GPU_SHARED(int, indices, [kMergeWarps * kMaxList]);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int64_t row = blockIdx.x;
  const A* lists = work.list_logits + row * work.slices * p.K;
  const int* list_indices = work.list_indices + row * work.slices * p.K;
  WarpList<A> list(int(p.K));
  for (int64_t i = work.slices * warp / kMergeWarps; i < work.slices * (warp + 1) / kMergeWarps;
       ++i) {
    for (int64_t k = 0; k < p.K; k += 32) {
      const bool valid = k + lane < p.K;
      list.add(valid ? lists[i * p.K + k + lane] : A(0),
               valid ? list_indices[i * p.K + k + lane] : INT32_MAX, valid);
    }
  }
  list.store(values + warp * kMaxList, indices + warp * kMaxList);
  __syncthreads();
  if (warp > 0) return;
  for (int i = 1; i < kMergeWarps; ++i) {
    for (int k = lane; k < kMaxList; k += 32) {
      list.add(values[i * kMaxList + k], indices[i * kMaxList + k], k < p.K);
    }
  }
  const Finish<A> finish(warp_merge_parts(work.parts + row * work.slices, work.slices), p, work,
                         row);
  for (int half = 0; half < 2; ++half) {
    const int k = lane + 32 * half;
    if (k < p.K) finish.write_listed(k, list.value(half), list.index(half));
  }
}

// A block a row.
template <class A>
__global__ void __launch_bounds__(kSortThreads, 2)
    sort_logits_kernel(const __grid_constant__ VocabPickParams p,
                       const __grid_constant__ VocabWork<A> work) {
  const int64_t row = blockIdx.x;
  const Finish<A> finish(warp_merge_parts(work.parts + row * work.slices, work.slices), p, work,
                         row);
  const SortBuffers<A> sorted = sort_words(work.logits + row * p.V, p.V, work.sort, row);
  for (int64_t k = threadIdx.x; k < p.K; k += kSortThreads) {
    finish.write_listed(k, value_of_key<A>(sorted.keys[k]), sorted.indices[k]);
  }
}

template <class A>
Status launch(const char* name, void (*kernel)(VocabPickParams, VocabWork<A>), int64_t blocks,
              int threads, const VocabPickParams& p, const VocabWork<A>& work,
              const Runtime& runtime) {
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = gpu::launch(config, name, kernel, p, work);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure(std::string("vocab_pick: ") + name, error));
}

}  // namespace

template <class A>
Status merge_best(const VocabPickParams& p, const VocabWork<A>& work, const Runtime& runtime) {
  return launch("merge_best", merge_best_kernel<A>, (p.B + kMergeWarps - 1) / kMergeWarps,
                32 * kMergeWarps, p, work, runtime);
}
template <class A>
Status merge_lists(const VocabPickParams& p, const VocabWork<A>& work, const Runtime& runtime) {
  return launch("merge_lists", merge_lists_kernel<A>, p.B, 32 * kMergeWarps, p, work, runtime);
}
template <class A>
Status sort_logits(const VocabPickParams& p, const VocabWork<A>& work, const Runtime& runtime) {
  return launch("sort_logits", sort_logits_kernel<A>, p.B, kSortThreads, p, work, runtime);
}
template <class A>
int64_t sort_bytes_per_row(const VocabPickParams& p) {
  return SortBuffers<A>::bytes(p.V);
}

template Status merge_best<float>(const VocabPickParams&, const VocabWork<float>&, const Runtime&);
template Status merge_best<double>(const VocabPickParams&, const VocabWork<double>&,
                                   const Runtime&);
template Status merge_lists<float>(const VocabPickParams&, const VocabWork<float>&, const Runtime&);
template Status merge_lists<double>(const VocabPickParams&, const VocabWork<double>&,
                                    const Runtime&);
template Status sort_logits<float>(const VocabPickParams&, const VocabWork<float>&, const Runtime&);
template Status sort_logits<double>(const VocabPickParams&, const VocabWork<double>&,
                                    const Runtime&);
template int64_t sort_bytes_per_row<float>(const VocabPickParams&);
template int64_t sort_bytes_per_row<double>(const VocabPickParams&);

}  // namespace seq2seq_ext::kernels::cuda
