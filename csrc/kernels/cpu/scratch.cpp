// SPDX-License-Identifier: MIT
#include "cpu/scratch.h"

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

Block allocate(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  const size_t capacity = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, capacity);
  if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (capacity >= kHugePage) madvise(data, capacity, MADV_HUGEPAGE);
#endif
  return {data, capacity};
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
    std::free(p.idle.front().data);
    p.retained -= p.idle.front().capacity;
    p.idle.erase(p.idle.begin());
  }
  if (capacity_ > kMaxRetained) {
    std::free(data_);
    return;
  }
  p.idle.push_back({data_, capacity_});  // never reallocates: see Pool
  p.retained += capacity_;
}

}  // namespace seq2seq_ext::kernels::cpu
