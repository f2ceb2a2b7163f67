// SPDX-License-Identifier: MIT
// The order in which a batch of unequal lengths is worked off: rows sorted by descending length, so
// that the rows still active at step s are the first active[s] of them, and padding costs nothing.
// (step s, sorted row i) is entry offset[s] + i of every "packed" buffer; there are N =
// offset[steps] entries.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace seq2seq_ext::kernels::cpu {

struct Schedule {
  Schedule(int64_t T, int64_t B, const int64_t* lengths) : order(B), length(B, T) {
    std::iota(order.begin(), order.end(), int64_t{0});
    if (lengths != nullptr) {
      std::stable_sort(order.begin(), order.end(),
                       [lengths](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
      for (int64_t i = 0; i < B; ++i) length[i] = lengths[order[i]];
    }
    steps = B == 0 ? 0 : length[0];
    active.resize(steps + 1);
    offset.resize(steps + 1);
    int64_t rows = B, total = 0;
    for (int64_t s = 0; s <= steps; ++s) {
      while (rows > 0 && length[rows - 1] <= s) --rows;
      active[s] = rows;
      offset[s] = total;
      total += rows;
    }
    N = total;
  }

  // The time index that sorted row i is at in step s.
  int64_t time(int64_t s, int64_t i, bool reverse) const { return reverse ? length[i] - 1 - s : s; }

  int64_t steps;                // longest length
  int64_t N;                    // sum of the lengths
  std::vector<int64_t> order;   // (B): the batch row that is i-th longest
  std::vector<int64_t> length;  // (B): its length
  std::vector<int64_t> active;  // (steps + 1): active[steps] == 0
  std::vector<int64_t> offset;  // (steps + 1)
};

}  // namespace seq2seq_ext::kernels::cpu
