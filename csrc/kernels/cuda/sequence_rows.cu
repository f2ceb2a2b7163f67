// SPDX-License-Identifier: MIT
#include "cuda/math.cuh"
#include "cuda/sequence_rows.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 12;  // threads go on in strides of the whole grid

dim3 grid_of(int64_t count) {
  const unsigned blocks = blocks_of(count, kThreads);
  return dim3(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

__device__ int64_t first_index() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }
__device__ int64_t index_step() { return int64_t(gridDim.x) * kThreads; }

// 16 bytes that may be copied at once.
struct alignas(16) Word16 {
  uint32_t part[4] = {};
};

// W and the strides count words. `last`: every row at its own last valid time instead of `first`
// on.
template <class Word>
__global__ void __launch_bounds__(kThreads)
    copy_rows_kernel(TimeBatch from, int64_t first, const int64_t* lengths, bool last, Word* to) {
  const Word* const words = static_cast<const Word*>(from.data);
  const int64_t count = from.T * from.B * from.W;
  for (int64_t i = first_index(); i < count; i += index_step()) {
    const int64_t row = i / from.W, w = i % from.W;
    const int64_t b = row % from.B;
    int64_t t = first + row / from.B;
    const int64_t length = lengths == nullptr ? INT64_MAX : lengths[b];
    if (last) t = (length < first ? length : first) - 1;  // first == T
    const bool valid = words != nullptr && t >= 0 && t < length;
    to[i] = valid ? words[t * from.stride_t + b * from.stride_b + w] : Word{};
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) narrow_kernel(const float* from, int64_t count, T* to) {
  for (int64_t i = first_index(); i < count; i += index_step()) to[i] = from_acc<T>(from[i]);
}

template <class Word>
void launch_copy(Queue& queue, int64_t scale, TimeBatch from, int64_t first, const int64_t* lengths,
                 bool last, void* to) {
  from.W = from.W * scale / int64_t{sizeof(Word)};
  from.stride_t = from.stride_t * scale / int64_t{sizeof(Word)};
  from.stride_b = from.stride_b * scale / int64_t{sizeof(Word)};
  const int64_t count = from.T * from.B * from.W;
  if (count == 0) return;
  queue.launch("copy_rows", copy_rows_kernel<Word>, grid_of(count), kThreads, from, first, lengths,
               last, static_cast<Word*>(to));
}

// In the largest words that everything is a multiple of.
void copy_words(Queue& queue, DType dtype, const TimeBatch& from, int64_t first,
                const int64_t* lengths, bool last, void* to) {
  const int64_t scale = size_of(dtype);
  const auto multiple_of = [&](int64_t bytes) {
    return from.W * scale % bytes == 0 && from.stride_t * scale % bytes == 0 &&
           from.stride_b * scale % bytes == 0 &&
           reinterpret_cast<uintptr_t>(from.data) % bytes == 0 &&
           reinterpret_cast<uintptr_t>(to) % bytes == 0;
  };
  if (multiple_of(16)) return launch_copy<Word16>(queue, scale, from, first, lengths, last, to);
  if (multiple_of(4)) return launch_copy<uint32_t>(queue, scale, from, first, lengths, last, to);
  launch_copy<uint16_t>(queue, scale, from, first, lengths, last, to);
}

}  // namespace

void copy_rows(Queue& queue, DType dtype, const TimeBatch& from, int64_t first,
               const int64_t* lengths, void* to) {
  copy_words(queue, dtype, from, first, lengths, false, to);
}

void copy_last_rows(Queue& queue, DType dtype, const TimeBatch& from, const int64_t* lengths,
                    void* to) {
  TimeBatch rows = from;
  rows.T = 1;
  copy_words(queue, dtype, rows, from.T, lengths, true, to);
}

void copy(Queue& queue, DType dtype, const void* from, int64_t count, void* to) {
  copy_words(queue, dtype, {from, count, count, 1, 1, count}, 0, nullptr, false, to);
}

void narrow(Queue& queue, DType dtype, const void* from, int64_t count, void* to) {
  if (sum_type(dtype) == dtype) return copy(queue, dtype, from, count, to);
  dispatch_dtype(dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      queue.launch("narrow", narrow_kernel<T>, grid_of(count), kThreads,
                   static_cast<const float*>(from), count, static_cast<T*>(to));
    }
  });
}

}  // namespace seq2seq_ext::kernels::cuda
