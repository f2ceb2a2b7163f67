// SPDX-License-Identifier: MIT
// Fingerprints of weights (packed_weights.h), at the rate at which memory is read.
#pragma once

#include "cpu/packed_weights.h"
#include "cpu/target.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {

// Reads bytes into chains: each word is mixed into its chain by steps that can be undone, so that
// no single change is ever lost; the rotation carries the top bits, where signs are, to the others.
class FingerprintReader {
 public:
  FingerprintReader() {
    for (int i = 0; i < kVectors; ++i) {
      for (int j = 0; j < kLanes; ++j) chain_[i][j] = 0x9e3779b9u * (1 + i * kLanes + j);
    }
  }

  void read(const void* data, int64_t bytes) {
    const char* from = static_cast<const char*>(data);
    Words chain[kVectors];
    for (int i = 0; i < kVectors; ++i) chain[i] = chain_[i];
    for (; bytes >= kBlock; bytes -= kBlock, from += kBlock) mix(from, chain);
    if (bytes > 0) {
      char rest[kBlock] = {};
      std::memcpy(rest, from, static_cast<size_t>(bytes));
      mix(rest, chain);
    }
    for (int i = 0; i < kVectors; ++i) chain_[i] = chain[i];
  }

  Fingerprint value() const {
    Fingerprint out;
    std::memcpy(out.word, chain_, sizeof(out.word));
    return out;
  }

 private:
  typedef uint32_t Words __attribute__((vector_size(64)));
  static constexpr int kLanes = 16, kVectors = Fingerprint::kWords / kLanes;
  static constexpr int64_t kBlock = kVectors * int64_t{sizeof(Words)};

  static SEQ2SEQ_EXT_INLINE void mix(const char* from, Words* chain) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      Words next;
      std::memcpy(&next, from + i * sizeof(Words), sizeof(Words));
      const Words x = chain[i] ^ next;
      chain[i] = ((x << 13) | (x >> 19)) * 0x85ebca6bu;
    }
  }

  Words chain_[kVectors];
};

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
