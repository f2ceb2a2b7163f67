// SPDX-License-Identifier: MIT
// Packed copies of weights that outlive the call: where nothing is learnt, call after call packs
// the same weights, which at batch 1 is a fifth of the work.
//
// A copy is used again only where the fingerprint of all the bytes that it was made from is that of
// the weights as they are now, whoever wrote to them and by what means. That costs one read of
// them, and spares the user a promise. Who promises (freeze_weights) saves the reading.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/scratch.h"

namespace seq2seq_ext::kernels::cpu {

// What was read of one panel's weights: chains of 32-bit words, side by side. A change of a single
// word in a chain always changes the chain; several get by unnoticed with a probability of 2**-32 a
// chain that has them.
struct alignas(64) Fingerprint {
  static constexpr int kWords = 64;
  uint32_t word[kWords];

  bool operator==(const Fingerprint& other) const;
};

// The packed panels of one recurrent layer and direction, with the fingerprint of each.
class PackedWeights {
 public:
  struct Key {
    const void* w_ih;
    const void* w_hh;
    const void* w_hr;
    int64_t I, H, P;
    int cell, dtype;
    bool operator==(const Key& other) const;
  };
  struct Sizes {
    int64_t ih_bytes, hh_bytes, hr_bytes;
    int64_t panels, projection_panels;
  };

  PackedWeights(const Key& key, const Sizes& sizes);
  ~PackedWeights();

  void* ih() const { return ih_.data(); }
  void* hh() const { return hh_.data(); }
  void* hr() const { return hr_.data(); }

  // Of panel p of w_ih and w_hh, and of panel p of w_hr. True where that is what the panel was
  // packed from; else it is noted, and the caller packs.
  bool same(int64_t p, const Fingerprint& now) { return compare(prints_[p], now); }
  bool same_projection(int64_t p, const Fingerprint& now) {
    return compare(projection_prints_[p], now);
  }

  // True where these weights are frozen and every panel has been compared since they are.
  bool trusted() const { return promise_ != 0 && compared_under_ == promise_; }
  // For this call the weights are under this promise (0: none). / Every panel has been compared.
  void set_promise(uint64_t promise) { promise_ = promise; }
  void set_compared() { compared_under_ = promise_; }

  const Key& key() const { return key_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Print {
    bool known = false;
    Fingerprint value;
  };
  static bool compare(Print& kept, const Fingerprint& now);

  const Key key_;
  const int64_t bytes_;
  Scratch ih_, hh_, hr_;
  std::vector<Print> prints_, projection_prints_;
  uint64_t promise_ = 0, compared_under_ = 0;
};

// The copy kept for these weights, or room for a new one; it is this call's alone until it is given
// back. The least recently used copies go where all together exceed kMostKeptBytes.
constexpr int64_t kMostKeptBytes = int64_t{256} << 20;
std::unique_ptr<PackedWeights> take_packed_weights(const PackedWeights::Key& key,
                                                   const PackedWeights::Sizes& sizes);
// compared: the call went through all panels.
void keep_packed_weights(std::unique_ptr<PackedWeights> weights, bool compared);

// From now on, until as many calls of unfreeze_weights, the weights at these addresses stay as they
// are and where they are: after one more comparison, their copies are used without any. `w_hr` is
// null where there is no projection.
void freeze_weights(const void* w_ih, const void* w_hh, const void* w_hr);
void unfreeze_weights(const void* w_ih, const void* w_hh, const void* w_hr);

}  // namespace seq2seq_ext::kernels::cpu
