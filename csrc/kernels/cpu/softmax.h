// SPDX-License-Identifier: MIT
// Softmax in parts that are put together later: each part has its own maximum.
#pragma once

#include "cpu/math.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// e^x for x <= 0; NaN stays NaN.
template <class T>
SEQ2SEQ_EXT_INLINE Vec<T> exp_of_negative(Vec<T> x) {
  const Vec<T> lowest(ExpConstants<T>::kMin);
  const SplitExp<T> e = split_exp(max(lowest, x));
  return select<T>(x < lowest, Vec<T>(T(0)), fma(e.scale, e.q, e.scale));
}

// The largest of n values, a multiple of the lanes.
template <class T>
SEQ2SEQ_EXT_INLINE T max_of(const T* x, int64_t n) {
  Vec<T> largest = load(x);
  for (int64_t i = Vec<T>::kLanes; i < n; i += Vec<T>::kLanes) largest = max(largest, load(x + i));
  return reduce_max(largest);
}

// body(i), by ascending i, for the values that may not be left out: all but those below `bound`.
template <class T, class Body>
SEQ2SEQ_EXT_INLINE void each_not_below(T bound, const T* x, int64_t n, const Body& body) {
  for (int64_t i = 0; i < n; i += Vec<T>::kLanes) {
    uint32_t rest = lanes_set<T>(load(x + i) < Vec<T>(bound)) ^ kAllLanes<T>;
    for (; rest != 0; rest &= rest - 1) body(i + __builtin_ctz(rest));
  }
}

// max and sum of exp(x - max) of n values, a multiple of the lanes. The sum is NaN if a value is
// NaN or +inf; it is 0 if all are -inf.
template <class T>
struct SoftmaxPart {
  T max, sum;
};

template <class T>
SEQ2SEQ_EXT_INLINE SoftmaxPart<T> softmax_part(const T* x, int64_t n) {
  constexpr int kLanes = Vec<T>::kLanes;
  const T top = max_of(x, n);
  const Vec<T> shift(top == -std::numeric_limits<T>::infinity() ? T(0) : top);
  Vec<T> sum(T(0));
  for (int64_t i = 0; i < n; i += kLanes) sum = sum + exp_of_negative(load(x + i) - shift);
  return {top, reduce_add(sum)};
}

// Sum over parts of sum_i * exp(max_i - max), in a fixed order; n a multiple of the lanes, filled
// up with (-inf, 0).
template <class T>
SoftmaxPart<T> merge_parts(const T* maxima, const T* sums, int64_t n) {
  constexpr int kLanes = Vec<T>::kLanes;
  const T top = max_of(maxima, n);
  const Vec<T> shift(top == -std::numeric_limits<T>::infinity() ? T(0) : top);
  Vec<T> sum(T(0));
  for (int64_t i = 0; i < n; i += kLanes) {
    sum = fma(load(sums + i), exp_of_negative(load(maxima + i) - shift), sum);
  }
  return {top, reduce_add(sum)};
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
