// SPDX-License-Identifier: MIT
// exp and log in double, made of IEEE operations in a fixed order: the bits that
// seq2seq_ext/generation/{exact,philox}.py have on every machine.
#pragma once

#include <cstdint>

namespace seq2seq_ext::kernels::cpu::decode {

// x, a product, as a double of its own: no fused multiply-add takes it in. Wanted where a sum
// follows and the machine has such an instruction (-ffp-contract=fast).
static inline double rounded(double x) {
#if !defined(__x86_64__) || defined(__FMA__)
  asm("" : "+m"(x));
#endif
  return x;
}

// e**x, given x <= 0 or NaN; results under 2**-1022 are zero.
double exact_exp(double x);

// Natural logarithm, given x >= 0; of zero -inf.
double exact_log(double x);

// The same of n numbers in place; logarithms of what lies in [2**-1022, 1].
void exact_exp_each(double* x, int64_t n);
void exact_log_each(double* x, int64_t n);

// The Gumbel noise of a token: the largest of log p + noise is a draw from p.
double exact_gumbel(uint64_t seed, uint64_t row, int64_t step, int64_t token);

}  // namespace seq2seq_ext::kernels::cpu::decode
