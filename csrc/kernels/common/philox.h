// SPDX-License-Identifier: MIT
// Random numbers by counting (Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011): each is a function of what it is for, so that a draw depends on no tiling,
// batch, thread or device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SEQ2SEQ_EXT_PHILOX __host__ __device__ inline
#else
#define SEQ2SEQ_EXT_PHILOX inline
#endif

namespace seq2seq_ext::kernels {

struct Philox {
  static constexpr uint32_t kMultiply0 = 0xD2511F53, kMultiply1 = 0xCD9E8D57;
  static constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  static constexpr int kRounds = 10;

  uint32_t word[4];  // the counter; after run() four random words

  SEQ2SEQ_EXT_PHILOX void run(uint64_t key) {
    uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
    for (int i = 0; i < kRounds; ++i) {
      const uint64_t a = uint64_t{kMultiply0} * word[0], b = uint64_t{kMultiply1} * word[2];
      word[0] = static_cast<uint32_t>(b >> 32) ^ word[1] ^ key0;
      word[1] = static_cast<uint32_t>(b);
      word[2] = static_cast<uint32_t>(a >> 32) ^ word[3] ^ key1;
      word[3] = static_cast<uint32_t>(a);
      key0 += kWeyl0;
      key1 += kWeyl1;
    }
  }
};

// What a draw over the vocabulary is keyed on. Words v = 32 i + 8 slot + lane take number `slot` of
// the counter (8 i + lane, step, row): the four numbers of one run belong to words 8 apart.
struct DrawKey {
  uint64_t seed;
  uint32_t step;  // of an int64, the low half
  uint64_t row;

  SEQ2SEQ_EXT_PHILOX Philox counter(uint32_t call) const {
    return {{call, step, static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32)}};
  }
};

constexpr int kDrawBlock = 32, kDrawLanes = 8;

}  // namespace seq2seq_ext::kernels
