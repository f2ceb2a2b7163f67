// SPDX-License-Identifier: MIT
// Arrays of the sequence kernels as the products want them: copies, conversions, and (T, B, W)
// arrays as matrices.
#pragma once

#include "cuda/sequence_queue.h"

namespace seq2seq_ext::kernels::cuda {

// (T, B, W), last dimension contiguous.
struct TimeBatch {
  const void* data;
  int64_t stride_t, stride_b;
  int64_t T, B, W;
};

// Work memory of arrays that are made piece by piece, each direction: large enough for full speed
// of the products that read it, small enough not to matter beside the tensors of a training step.
constexpr int64_t kPieceBytes = 32 << 20;
inline int64_t piece_steps(int64_t T, int64_t bytes_per_step) {
  const int64_t steps = kPieceBytes / (bytes_per_step > 0 ? bytes_per_step : 1);
  return steps < 1 ? 1 : steps < T ? steps : T;
}

// to (T, B, W) = from at times [first, first + T), zero from a row's length on (lengths null:
// none).
void copy_rows(Queue& queue, DType dtype, const TimeBatch& from, int64_t first,
               const int64_t* lengths, void* to);

// to (B, W) = each row of `from` at its last valid time, zero where there is none.
void copy_last_rows(Queue& queue, DType dtype, const TimeBatch& from, const int64_t* lengths,
                    void* to);

// to (count) = from; null: zero.
void copy(Queue& queue, DType dtype, const void* from, int64_t count, void* to);

// to (count) of `dtype` = from of its sum type.
void narrow(Queue& queue, DType dtype, const void* from, int64_t count, void* to);

// A (T, B, W) array as matrices of up to `steps` times' rows: in place where its rows are evenly
// spaced and none has to be masked, else in work memory of (steps, B, W).
class Rows {
 public:
  // lengths: rows are to read as zero from there on; null: nothing to mask.
  Rows(Queue& queue, DType dtype, const TimeBatch& array, const int64_t* lengths)
      : queue_(queue), dtype_(dtype), array_(array), lengths_(lengths) {
    const TimeBatch& a = array;
    row_stride_ = a.B == 1 ? a.stride_t : a.stride_b;
    in_place_ = lengths == nullptr && row_stride_ >= a.W &&
                (a.B == 1 || a.T == 1 || a.stride_t == a.B * a.stride_b);
    steps_ = in_place_ ? a.T : piece_steps(a.T, a.B * a.W * size_of(dtype));
  }

  // At most so many times at once.
  int64_t steps() const { return steps_; }

  // Times [begin, end): (end - begin) * B rows. Valid until the next call.
  Matrix matrix(int64_t begin, int64_t end) {
    if (in_place_) return {at(array_.data, dtype_, begin * array_.stride_t), row_stride_, 1};
    if (copy_ == nullptr) copy_ = queue_.allocate(steps_ * array_.B * array_.W, dtype_);
    TimeBatch piece = array_;
    piece.T = end - begin;
    copy_rows(queue_, dtype_, piece, begin, lengths_, copy_);
    return {copy_, array_.W, 1};
  }

 private:
  Queue& queue_;
  const DType dtype_;
  const TimeBatch array_;
  const int64_t* const lengths_;
  int64_t row_stride_, steps_;
  bool in_place_;
  void* copy_ = nullptr;
};

}  // namespace seq2seq_ext::kernels::cuda
