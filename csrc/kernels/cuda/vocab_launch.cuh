// SPDX-License-Identifier: MIT
// Which kernels a vocabulary pick is made of, for one dtype. Included by vocab_<dtype>.cu.
#pragma once

#include "cuda/vocab.cuh"
#include "cuda/vocab_merge.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

template <class T, int kN, template <class, int> class Keep>
Status launch_slices(const VocabPickParams& p, const VocabWork<AccOf<T>>& work,
                     const Runtime& runtime) {
  using Block = VocabBlock<T, kN, Keep<AccOf<T>, kN>>;
  const int64_t blocks = work.slices * ((p.B + kN - 1) / kN);
  gpu::Config config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(Block::kThreads);
  static_assert(Block::shared_bytes() <= 99 << 10, "what every GPU since sm_80 has");
  config.smem = Block::shared_bytes();
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = GPU_LAUNCH(config, (vocab_kernel<T, kN, Keep>), p, work);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure("vocab_pick", error));
}

// The tile's width follows the batch; it changes no bit of a row's result.
template <class T, template <class, int> class Keep>
Status run_slices(const VocabPickParams& p, const VocabWork<AccOf<T>>& work,
                  const Runtime& runtime) {
  if constexpr (sizeof(T) < 8) {
    if (p.B > 8) return launch_slices<T, 32, Keep>(p, work, runtime);
  }
  return launch_slices<T, 8, Keep>(p, work, runtime);
}
template <class T>
Status run_best(const VocabPickParams& p, const VocabWork<AccOf<T>>& work, const Runtime& runtime) {
  if constexpr (sizeof(T) == 2) {
    if (p.B > 32) return launch_slices<T, 64, KeepBest>(p, work, runtime);
  }
  return run_slices<T, KeepBest>(p, work, runtime);
}

// Two blocks a multiprocessor have one multiply while the other looks at its logits.
template <class A>
VocabWork<A> cut_vocabulary(int64_t V, const Device& device) {
  const int64_t tiles = (V + kVocabTile - 1) / kVocabTile, blocks = 2 * int64_t(device.sms);
  VocabWork<A> work{};
  work.slice_tiles = (tiles + blocks - 1) / blocks;
  work.slices = (tiles + work.slice_tiles - 1) / work.slice_tiles;
  return work;
}

enum class VocabWay { kBest, kLists, kSort };

template <class A>
struct VocabMemory {
  static constexpr int64_t kAtMost = int64_t{128} << 20;

  VocabWay way;
  int64_t parts, best, lists, logits, sort, unpenalized;  // bytes a row

  VocabMemory(const VocabPickParams& p, const VocabWork<A>& work)
      : way(p.K == 1 && p.scores == nullptr ? VocabWay::kBest
            : p.K <= kMaxList               ? VocabWay::kLists
                                            : VocabWay::kSort),
        parts(work.slices * sizeof(SoftmaxPart<A>)),
        best(way == VocabWay::kBest ? work.slices * sizeof(Candidate<A>) : 0),
        lists(way == VocabWay::kLists ? work.slices * p.K : 0),
        logits(way == VocabWay::kSort ? p.V * sizeof(A) : 0),
        sort(way == VocabWay::kSort ? sort_bytes_per_row<A>(p) : 0),
        unpenalized(p.seen != nullptr && way != VocabWay::kBest ? p.V * sizeof(A) : 0) {}

  int64_t rows(int64_t B) const {
    const int64_t row =
        parts + best + lists * (sizeof(A) + sizeof(int)) + logits + sort + unpenalized;
    return row * B <= kAtMost ? B : row >= kAtMost ? 1 : kAtMost / row;
  }

  // Null where there is none.
  static void* take(const Runtime& runtime, int64_t bytes, bool& failed) {
    if (bytes == 0) return nullptr;
    void* memory = runtime.allocate(bytes, runtime.context);
    failed |= memory == nullptr;
    return memory;
  }
  bool allocate(int64_t rows, const Runtime& runtime, VocabWork<A>& work) const {
    bool failed = false;
    const auto get = [&](int64_t bytes) { return take(runtime, rows * bytes, failed); };
    work.parts = static_cast<SoftmaxPart<A>*>(get(parts));
    work.best = static_cast<Candidate<A>*>(get(best));
    work.list_logits = static_cast<A*>(get(lists * sizeof(A)));
    work.list_indices = static_cast<int*>(get(lists * sizeof(int)));
    work.logits = static_cast<A*>(get(logits));
    work.sort = static_cast<char*>(get(sort));
    work.unpenalized = static_cast<A*>(get(unpenalized));
    return !failed;
  }
};

// `count` rows of p from `first`.
template <class T>
VocabPickParams some_rows(VocabPickParams p, int64_t first, int64_t count) {
  p.hidden = static_cast<const T*>(p.hidden) + first * p.H;
  p.log_probs = static_cast<AccOf<T>*>(p.log_probs) + first * p.K;
  p.indices += first * p.K;
  if (p.scores != nullptr) p.scores = static_cast<AccOf<T>*>(p.scores) + first * p.K;
  if (p.rows != nullptr) p.rows += first;
  p.B = count;
  return p;
}

}  // namespace

template <class T>
Status vocab_pick_as(const VocabPickParams& all, const Runtime& runtime) {
  using A = AccOf<T>;
  VocabWork<A> work = cut_vocabulary<A>(all.V, runtime.device);
  const A inverse_temperature = A(1 / all.temperature);
  work.inverse_temperature = all.plain ? A(1) : inverse_temperature;
  work.key_scale = all.plain ? inverse_temperature : A(1);
  const VocabMemory<A> memory(all, work);
  const int64_t rows = memory.rows(all.B);
  if (!memory.allocate(rows, runtime, work))
    return Status::invalid("vocab_pick: out of device memory");
  for (int64_t first = 0; first < all.B; first += rows) {
    const VocabPickParams p = some_rows<T>(all, first, std::min(rows, all.B - first));
    work.first_row = first;
    Status status = memory.way == VocabWay::kLists ? run_slices<T, KeepList>(p, work, runtime)
                                                   : run_best<T>(p, work, runtime);
    if (!status) return status;
    status = memory.way == VocabWay::kBest    ? merge_best(p, work, runtime)
             : memory.way == VocabWay::kLists ? merge_lists(p, work, runtime)
                                              : sort_logits(p, work, runtime);
    if (!status) return status;
  }
  return Status::ok();
}

}  // namespace seq2seq_ext::kernels::cuda
