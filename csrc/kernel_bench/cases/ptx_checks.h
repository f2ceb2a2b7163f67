// SPDX-License-Identifier: MIT
// The case "ptx" in two files: ptx.cpp, ptx_warps.cpp.
#pragma once

#include "bench.h"
#include "cases/ptx_kernels.h"

namespace seq2seq_ext::kernel_bench {

using Words = std::vector<uint32_t>;

struct Ptx {
  Bench& bench;

  Words random_words(size_t count) {
    Words words(count);
    for (uint32_t& w : words) w = uint32_t(bench.random() >> 32);
    return words;
  }
  std::vector<float> random_floats(size_t count, double scale) {
    std::normal_distribution<double> distribution(0.0, scale);
    std::vector<float> values(count);
    for (float& v : values) v = float(distribution(bench.random));
    return values;
  }
  void check(const std::string& name, bool right) { bench.check_true(name, right); }
  // A launch that has to succeed, and then its results.
  void run(const std::string& name, bool launched, const std::function<bool()>& right) {
    synchronize();
    bench.check_true(name, launched && right());
  }

  void lanes();
  void mma(ptx::Mma kind, const char* name);
  void ldmatrix(int count, bool transposed);
  void arithmetic();
  void copies();
  void memory();
  void flags();
  void barriers();
  void votes(uint32_t mask);
  void shuffles();
  void all_atomics();
  template <class T>
  void atomics(const char* name);
  void bits();
};

}  // namespace seq2seq_ext::kernel_bench
