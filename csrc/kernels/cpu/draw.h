// SPDX-License-Identifier: MIT
// Draws a word a row by Gumbel-argmax, block of logits by block.
#pragma once

#include "cpu/gumbel.h"
#include "cpu/softmax.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// The word with the largest key = logit + noise so far; of equal keys the lowest.
template <class T>
struct Drawn {
  T key = -std::numeric_limits<T>::infinity();
  T logit = 0;
  int64_t index = std::numeric_limits<int64_t>::max();

  bool beats(const Drawn& other) const {
    return key > other.key || (key == other.key && index < other.index);
  }
};

// Lets `count` words from `first` (a multiple of kDrawBlock) take part. `logits` has whole vectors
// and is at most `max`.
template <class T>
void draw_block(const DrawKey& key, const T* logits, int64_t first, int64_t count, T max,
                Drawn<T>& best) {
  constexpr int kLanes = Vec<T>::kLanes;
  constexpr T kLargestNoise = T(22.9);  // -log(2^-33), rounded up
  if (max + kLargestNoise < best.key) return;
  for (int64_t block = 0; block < count; block += kDrawBlock) {
    uint32_t bits[kDrawBlock];
    draw_bits(key, static_cast<uint32_t>((first + block) / kDrawBlock), bits);
    for (int64_t i = block; i < std::min(block + kDrawBlock, count); i += kLanes) {
      const Vec<T> logit = load(logits + i), v = uniform<T>(bits + (i - block));
      // The noise is below -log(v), which rules most words out. The margin is more than rounding
      // can add to a key, so that leaving words out changes no result.
      const T margin = T(1e-3) + std::abs(best.key) * T(1e-6);
      const Vec<T> gap = min(Vec<T>(T(0)), (logit - Vec<T>(best.key)) + Vec<T>(margin));
      if (lanes_set<T>(v > exp_of_negative(gap)) == kAllLanes<T>) continue;
      T keys[kLanes];
      store<T>(keys, logit + gumbel_of_uniform(v));
      for (int64_t j = 0; j < std::min<int64_t>(kLanes, count - i); ++j) {
        if (keys[j] > best.key) best = {keys[j], logits[i + j], first + i + j};
      }
    }
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
