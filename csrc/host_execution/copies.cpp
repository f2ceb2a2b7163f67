// SPDX-License-Identifier: MIT
// Asynchronous copies. Each happens when it is started, or as late as the wait for it: kernels that
// do not wait read what was there before.
#include <cstring>

#include "host_execution/internal.h"

#if defined(HX_WITH_TSAN)
// What instrumented code calls.
extern "C" void __tsan_write_range(void* address, unsigned long bytes);
extern "C" void __tsan_read_range(void* address, unsigned long bytes);
#endif

namespace hx {

namespace {

void perform(const Copy& copy) {
  char* to = static_cast<char*>(copy.to);
  if (copy.source_bytes) std::memcpy(to, copy.from, copy.source_bytes);
  std::memset(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

[[maybe_unused]] bool now() {
  switch (options().copies) {
    case Copies::kEager:
      return true;
    case Copies::kLazy:
      return false;
    default:
      return random_below(2) == 0;
  }
}

void enqueue(CopyQueue& queue, const Copy& copy) {
  if (queue.head == queue.tail) queue.head = queue.tail = 0;
  if (queue.tail == queue.capacity) {
    const unsigned capacity = queue.capacity ? 2 * queue.capacity : 16;
    auto* copies = reinterpret_cast<Copy*>(launched.arena.take(capacity * sizeof(Copy), 16));
    for (unsigned i = queue.head; i < queue.tail; ++i) copies[i] = queue.copies[i];
    queue.copies = copies;
    queue.capacity = capacity;
  }
  queue.copies[queue.tail++] = copy;
}

}  // namespace

void copy_async(void* to, const void* from, unsigned bytes, unsigned source_bytes,
                const Place& at) {
  if (source_bytes > bytes) {
    fail("%s:%d: cp.async reads %u bytes to write %u", name_of(at), at.line, source_bytes, bytes);
  }
  check_aligned("cp.async (to shared memory)", to, bytes, at);
  check_aligned("cp.async (from global memory)", from, bytes, at);
  if (!in_shared(to, bytes)) {
    fail("%s:%d: cp.async: destination is not in this block's shared memory", name_of(at), at.line);
  }
  if (current->copies == nullptr) {
    current->copies = new (launched.arena.take(sizeof(CopyQueue), 16)) CopyQueue;
  }
  CopyQueue& queue = *current->copies;
  const Copy copy{to, from, bytes, source_bytes, queue.group};
#if defined(HX_WITH_TSAN)
  // It may happen at any time from here to the wait: both ends count as accesses, so it is
  // performed at the last moment whatever the options say.
  __tsan_write_range(to, bytes);
  __tsan_read_range(const_cast<void*>(from), source_bytes);
  enqueue(queue, copy);
#else
  if (now()) {
    perform(copy);
  } else {
    enqueue(queue, copy);
  }
#endif
}

void copy_commit() {
  if (current->copies) ++current->copies->group;
}

void copy_wait(unsigned groups_left) {
  CopyQueue* queue = current->copies;
  if (queue == nullptr) return;
  while (queue->head < queue->tail &&
         queue->copies[queue->head].group + groups_left < queue->group) {
    perform(queue->copies[queue->head++]);
  }
}

void finish_copies() {
  copy_commit();
  copy_wait(0);
}

// ---- Bulk copies: by a unit of its own
// ------------------------------------------------------------

void copy_bulk(void* to, const void* from, unsigned bytes, uint64_t* barrier, const Place& at) {
  check_aligned("bulk copy (to shared memory)", to, 16, at);
  check_aligned("bulk copy (from global memory)", from, 16, at);
  if (bytes % 16) {
    fail("%s:%d: bulk copy: %u bytes are not a multiple of 16", name_of(at), at.line, bytes);
  }
  if (!in_shared(to, bytes)) {
    fail("%s:%d: bulk copy: destination is not in this block's shared memory", name_of(at),
         at.line);
  }
  BulkCopy bulk{{to, from, bytes, bytes, 0}, barrier, current->block, nullptr};
#if defined(HX_WITH_TSAN)
  bulk.tsan = __tsan_create_fiber(0);  // after all that this thread has done so far
#endif
  launched.bulk_copies.push_back(bulk);
}

void run_bulk_copy(size_t i) {
  const BulkCopy bulk = launched.bulk_copies[i];
  launched.bulk_copies[i] = launched.bulk_copies.back();
  launched.bulk_copies.pop_back();
#if defined(HX_WITH_TSAN)
  void* main = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(bulk.tsan, 1);
#endif
  perform(bulk.copy);
  tsan_release(bulk.barrier);
  mbar_update(bulk.barrier, 0, -int(bulk.copy.bytes), Place{"(bulk copy)", 0});
#if defined(HX_WITH_TSAN)
  __tsan_switch_to_fiber(main, 1);
  __tsan_destroy_fiber(bulk.tsan);
#endif
  launched.spin_streak = 0;
}

}  // namespace hx
