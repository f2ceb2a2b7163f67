// SPDX-License-Identifier: MIT
#include "cpu/packed_weights.h"

#include <cstring>
#include <list>
#include <mutex>

namespace seq2seq_ext::kernels::cpu {
namespace {

struct Frozen {
  const void* w_ih;
  const void* w_hh;
  const void* w_hr;
  uint64_t promise;  // the number of the latest
  int64_t count;
  bool is(const void* ih, const void* hh, const void* hr) const {
    return w_ih == ih && w_hh == hh && w_hr == hr;
  }
};

struct Kept {
  std::mutex mutex;
  std::list<std::unique_ptr<PackedWeights>> copies;  // the most recently used first
  int64_t bytes = 0;
  std::list<Frozen> frozen;
  uint64_t promises = 0;

  uint64_t promise_of(const PackedWeights::Key& key) const {
    for (const Frozen& f : frozen) {
      if (f.is(key.w_ih, key.w_hh, key.w_hr)) return f.promise;
    }
    return 0;
  }
};

// Never destroyed: a kernel may still run while static objects are torn down.
Kept& kept() {
  static Kept* const instance = new Kept;
  return *instance;
}

int64_t total(const PackedWeights::Sizes& s) {
  const int64_t prints = (s.panels + s.projection_panels) * int64_t{sizeof(Fingerprint)};
  return s.ih_bytes + s.hh_bytes + s.hr_bytes + prints;
}

}  // namespace

bool Fingerprint::operator==(const Fingerprint& other) const {
  return std::memcmp(word, other.word, sizeof(word)) == 0;
}

bool PackedWeights::Key::operator==(const Key& other) const {
  return w_ih == other.w_ih && w_hh == other.w_hh && w_hr == other.w_hr && I == other.I &&
         H == other.H && P == other.P && cell == other.cell && dtype == other.dtype;
}

PackedWeights::PackedWeights(const Key& key, const Sizes& sizes)
    : key_(key),
      bytes_(total(sizes)),
      ih_(static_cast<size_t>(sizes.ih_bytes)),
      hh_(static_cast<size_t>(sizes.hh_bytes)),
      hr_(static_cast<size_t>(sizes.hr_bytes)),
      prints_(static_cast<size_t>(sizes.panels)),
      projection_prints_(static_cast<size_t>(sizes.projection_panels)) {}

PackedWeights::~PackedWeights() = default;

bool PackedWeights::compare(Print& kept, const Fingerprint& now) {
  if (kept.known && kept.value == now) return true;
  kept.known = true;
  kept.value = now;
  return false;
}

std::unique_ptr<PackedWeights> take_packed_weights(const PackedWeights::Key& key,
                                                   const PackedWeights::Sizes& sizes) {
  Kept& k = kept();
  uint64_t promise;
  {
    const std::lock_guard<std::mutex> lock(k.mutex);
    promise = k.promise_of(key);
    for (auto it = k.copies.begin(); it != k.copies.end(); ++it) {
      if (!((*it)->key() == key)) continue;
      std::unique_ptr<PackedWeights> found = std::move(*it);
      k.copies.erase(it);
      k.bytes -= found->bytes();
      found->set_promise(promise);
      return found;
    }
  }
  auto fresh = std::make_unique<PackedWeights>(key, sizes);
  fresh->set_promise(promise);
  return fresh;
}

void keep_packed_weights(std::unique_ptr<PackedWeights> weights, bool compared) {
  if (compared) weights->set_compared();
  if (weights->bytes() > kMostKeptBytes) return;
  Kept& k = kept();
  const std::lock_guard<std::mutex> lock(k.mutex);
  // A second copy of the same weights, of calls at the same time, is soon the least recently used.
  while (k.bytes + weights->bytes() > kMostKeptBytes) {
    k.bytes -= k.copies.back()->bytes();
    k.copies.pop_back();
  }
  k.bytes += weights->bytes();
  k.copies.push_front(std::move(weights));
}

void freeze_weights(const void* w_ih, const void* w_hh, const void* w_hr) {
  Kept& k = kept();
  const std::lock_guard<std::mutex> lock(k.mutex);
  const uint64_t promise = ++k.promises;
  for (Frozen& f : k.frozen) {
    if (!f.is(w_ih, w_hh, w_hr)) continue;
    f.promise = promise;
    ++f.count;
    return;
  }
  k.frozen.push_back({w_ih, w_hh, w_hr, promise, 1});
}

void unfreeze_weights(const void* w_ih, const void* w_hh, const void* w_hr) {
  Kept& k = kept();
  const std::lock_guard<std::mutex> lock(k.mutex);
  k.frozen.remove_if([&](Frozen& f) { return f.is(w_ih, w_hh, w_hr) && --f.count == 0; });
}

}  // namespace seq2seq_ext::kernels::cpu
