// SPDX-License-Identifier: MIT
// The K best of a stream of values: larger first, and of equals the lower index first. The result
// does not depend on the order in which they come, so streams can be cut and merged anyhow.
#pragma once

#include <cstdint>
#include <limits>

#include "cpu/scratch.h"

namespace seq2seq_ext::kernels::cpu {

template <class T>  // float or double
struct Candidate {
  T value;
  int64_t index;
};

// One stream a row. Values must not be NaN (NaN does no harm, but what is then kept is arbitrary).
template <class T>
class TopK {
 public:
  TopK(int64_t rows, int64_t K);
  void reset(int64_t rows);  // the first so many rows have seen nothing

  // Whether `value`, of an index above all that the row has seen, would be kept.
  bool wants(int64_t row, T value) const { return size_[row] < K_ || value > worst_[row]; }
  void offer(int64_t row, T value, int64_t index);
  bool full(int64_t row) const { return size_[row] == K_; }
  T worst(int64_t row) const { return worst_[row]; }  // of the K, once there are so many
  // No less is kept.
  T least(int64_t row) const {
    return full(row) ? worst_[row] : -std::numeric_limits<T>::infinity();
  }

  // The best K of row `row` over several streams of it, in order, or fewer if they have not seen K;
  // returns how many. `work` has room for num_streams * K candidates.
  static int64_t merge(TopK* const* streams, int64_t num_streams, int64_t row, Candidate<T>* work,
                       T* values, int64_t* indices);

 private:
  int64_t K_;
  ScratchArray<int64_t> size_;       // (rows)
  ScratchArray<T> worst_;            // (rows), once K are kept
  ScratchArray<Candidate<T>> kept_;  // (rows, K): heaps with the worst on top
};

extern template class TopK<float>;
extern template class TopK<double>;

}  // namespace seq2seq_ext::kernels::cpu
