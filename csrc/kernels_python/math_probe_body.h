// SPDX-License-Identifier: MIT
// Included by math_probe_<isa>.cpp only.
#include "cpu/math.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

template <class T>
void evaluate(char function, int64_t n, const T* x, T* y) {
  for (int64_t i = 0; i < n; i += Vec<T>::kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(Vec<T>::kLanes, n - i));
    const Vec<T> a = load(x + i, count);
    store<T>(y + i, function == 'e' ? exp(a) : function == 's' ? sigmoid(a) : tanh(a), count);
  }
}

}  // namespace

// function: 'e' exp, 's' sigmoid, 't' tanh
void math_probe(char function, bool is_double, int64_t n, const void* x, void* y) {
  if (is_double) {
    evaluate(function, n, static_cast<const double*>(x), static_cast<double*>(y));
  } else {
    evaluate(function, n, static_cast<const float*>(x), static_cast<float*>(y));
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
