// SPDX-License-Identifier: MIT
#include "cpu/scratch.h"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace seq2seq_ext::kernels::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMaxRetained = size_t{256} << 20;  // all idle blocks together
constexpr size_t kMaxIdle = 256;                    // blocks

struct Block {
  void* data;
  size_t capacity;
};

struct Pool {
  Pool() { idle.reserve(kMaxIdle); }
  std::mutex mutex;
  std::vector<Block> idle;
  size_t retained = 0;
};

// Never destroyed: a kernel may still run while static objects are torn down.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

// One of four sizes an octave: calls of slightly different shapes then share their blocks, where a
// block for each size would leave the heap in pieces that nothing fits.
size_t rounded(size_t bytes) {
  if (bytes <= kAlignment) return kAlignment;
  size_t octave = kAlignment;
  while (octave * 2 < bytes) octave *= 2;
  const size_t step = octave < 4 * kAlignment ? kAlignment : octave / 4;
  return (bytes + step - 1) / step * step;
}

#if defined(__linux__)
// Whole huge pages, straight from the system and back to it: on a heap their alignment would leave
// gaps.
Block map_pages(size_t bytes) {
  const size_t capacity = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  const size_t mapped = capacity + kHugePage;
  void* const all =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<uintptr_t>(all);
  const uintptr_t first = (address + kHugePage - 1) / kHugePage * kHugePage;
  if (first > address) munmap(all, first - address);
  const uintptr_t last = first + capacity, end = address + mapped;
  if (end > last) munmap(reinterpret_cast<void*>(last), end - last);
  madvise(reinterpret_cast<void*>(first), capacity, MADV_HUGEPAGE);
  return {reinterpret_cast<void*>(first), capacity};
}
#endif

Block allocate(size_t bytes) {
  const size_t capacity = rounded(bytes);
#if defined(__linux__)
  if (capacity >= kHugePage) return map_pages(capacity);
#endif
  void* data = std::aligned_alloc(kAlignment, capacity);
  if (data == nullptr) throw std::bad_alloc();
  return {data, capacity};
}

void release(const Block& block) {
#if defined(__linux__)
  if (block.capacity >= kHugePage) {
    munmap(block.data, block.capacity);
    return;
  }
#endif
  std::free(block.data);
}

}  // namespace

Scratch::Scratch(size_t bytes) {
  if (bytes == 0) bytes = kAlignment;
  Pool& p = pool();
  {
    const std::lock_guard<std::mutex> lock(p.mutex);
    // The smallest idle block that fits and is not wastefully large.
    size_t best = p.idle.size();
    for (size_t i = 0; i < p.idle.size(); ++i) {
      if (p.idle[i].capacity < bytes || p.idle[i].capacity / 4 > bytes + kHugePage) continue;
      if (best == p.idle.size() || p.idle[i].capacity < p.idle[best].capacity) best = i;
    }
    if (best < p.idle.size()) {
      data_ = p.idle[best].data;
      capacity_ = p.idle[best].capacity;
      p.retained -= capacity_;
      p.idle[best] = p.idle.back();
      p.idle.pop_back();
      return;
    }
  }
  const Block block = allocate(bytes);
  data_ = block.data;
  capacity_ = block.capacity;
}

Scratch::~Scratch() {
  Pool& p = pool();
  const std::lock_guard<std::mutex> lock(p.mutex);
  // Oldest blocks go first, so that the sizes in current use stay.
  while (!p.idle.empty() && (p.retained + capacity_ > kMaxRetained || p.idle.size() == kMaxIdle)) {
    release(p.idle.front());
    p.retained -= p.idle.front().capacity;
    p.idle.erase(p.idle.begin());
  }
  if (capacity_ > kMaxRetained) {
    release({data_, capacity_});
    return;
  }
  p.idle.push_back({data_, capacity_});  // never reallocates: see Pool
  p.retained += capacity_;
}

}  // namespace seq2seq_ext::kernels::cpu
