// SPDX-License-Identifier: MIT
// Shared memory: a piece of memory for every array of every block.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "host_execution/internal.h"

namespace hx {

char* Arena::take(size_t bytes, size_t align) {
  constexpr size_t kReserved = size_t(4) << 30;  // address space only
  if (base_ == nullptr) {
    void* memory = mmap(nullptr, kReserved, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no address space for shared memory");
    base_ = static_cast<char*>(memory);
  }
  used_ = (used_ + align - 1) / align * align;
  if (used_ + bytes > kReserved) fail("a launch used up its memory of %zu bytes", kReserved);
  char* piece = base_ + used_;
  used_ += bytes;
  return piece;
}

namespace {

// At an address that is `offset` modulo `modulus`: aligned as much as on the device and no more.
Piece allocate(const void* tag, size_t offset, size_t bytes, size_t modulus) {
  Piece piece{tag, offset, bytes, nullptr, nullptr};
  const size_t lead = offset % modulus;
  modulus = std::max<size_t>(modulus, 16);
#if defined(HX_WITH_TSAN)
  piece.memory = launched.arena.take(lead + bytes, modulus) + lead;
  // Not by memset, which would count as an access of this thread.
  for (size_t i = 0; i < bytes; ++i) const_cast<volatile char*>(piece.memory)[i] = char(0xff);
#else
  void* memory = nullptr;
  if (posix_memalign(&memory, modulus, std::max<size_t>(lead + bytes, 1)) != 0) {
    fail("out of memory");
  }
  piece.allocation = static_cast<char*>(memory);
  piece.memory = piece.allocation + lead;
  std::memset(piece.memory, 0xff, bytes);
#if defined(HX_ASAN)
  __asan_poison_memory_region(piece.allocation, lead / 8 * 8);
#endif
#endif
  return piece;
}

void release([[maybe_unused]] const Piece& piece) {
#if !defined(HX_WITH_TSAN)
  std::free(piece.allocation);
#endif
}

bool inside(const Piece& piece, const char* p, size_t bytes) {
  return p >= piece.memory && p + bytes <= piece.memory + piece.bytes;
}

}  // namespace

void* static_shared(const void* tag, size_t bytes, size_t align) {
  Block& b = *current->block;
  for (unsigned i = 0; i < b.num_statics; ++i) {
    if (b.statics[i].tag == tag) return b.statics[i].memory;
  }
  b.static_bytes = (b.static_bytes + align - 1) / align * align + bytes;
  if (b.static_bytes > kStaticLimit) {
    fail("%zu bytes of static shared memory, the limit is %zu", b.static_bytes, kStaticLimit);
  }
  const size_t all = b.static_bytes + launched.config->smem;
  if (all > options().shared_per_block) {
    fail("%zu bytes of static and dynamic shared memory, the limit is %zu", all,
         options().shared_per_block);
  }
  if (b.num_statics == kMaxStaticArrays) {
    fail("more than %zu static shared arrays", kMaxStaticArrays);
  }
  // 8: what is before the array can be made a redzone in units of 8 bytes.
  const size_t exact = std::max<size_t>(align, 8);
  b.statics[b.num_statics] = allocate(tag, exact, bytes, 2 * exact);
  return b.statics[b.num_statics++].memory;
}

unsigned char* dynamic_shared() {
  // As large as it can be, and any access to it crashes.
  static void* const memory =
      mmap(nullptr, kMostShared, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return static_cast<unsigned char*>(memory);
}

void* carve(size_t offset, size_t bytes, size_t align, const Place& at) {
  constexpr size_t kBaseAlign = 128;  // GPU_DYN_SHARED's
  Block& b = *current->block;
  for (unsigned i = 0; i < b.num_pieces; ++i) {
    const Piece& p = b.pieces[i];
    if (p.offset == offset && p.bytes == bytes) return p.memory;
    if (offset < p.offset + p.bytes && p.offset < offset + bytes) {
      fail("%s:%d: piece [%zu, %zu) of dynamic shared memory overlaps piece [%zu, %zu)",
           name_of(at), at.line, offset, offset + bytes, p.offset, p.offset + p.bytes);
    }
  }
  if (offset + bytes > launched.config->smem) {
    fail("%s:%d: piece [%zu, %zu) of dynamic shared memory, the launch gave %zu bytes", name_of(at),
         at.line, offset, offset + bytes, launched.config->smem);
  }
  if (align == 0 || (align & (align - 1)) || align > kBaseAlign) {
    fail("%s:%d: alignment %zu is not a power of 2 up to %zu", name_of(at), at.line, align,
         kBaseAlign);
  }
  if (b.num_pieces == kMaxDynamicPieces) {
    fail("more than %zu pieces of dynamic shared memory", kMaxDynamicPieces);
  }
  b.pieces[b.num_pieces] = allocate(nullptr, offset, bytes, kBaseAlign);
  return b.pieces[b.num_pieces++].memory;
}

bool in_shared(const void* p, size_t bytes) {
  const Block& b = *current->block;
  const char* c = static_cast<const char*>(p);
  const auto has = [&](const Piece& piece) { return inside(piece, c, bytes); };
  return std::any_of(b.pieces, b.pieces + b.num_pieces, has) ||
         std::any_of(b.statics, b.statics + b.num_statics, has);
}

void free_shared(Block& b) {
  std::for_each(b.pieces, b.pieces + b.num_pieces, release);
  std::for_each(b.statics, b.statics + b.num_statics, release);
  b.num_pieces = b.num_statics = 0;
}

}  // namespace hx
