// SPDX-License-Identifier: MIT
// Barriers of a block, of some of its warps, of the grid.
#include <cstring>

#include "host_execution/internal.h"

namespace hx {

namespace {

void complete(Barrier& b, Thread* self) {
  b.result[b.generation & 1] = b.sum;
  b.sum = 0;
  b.arrived = 0;
  b.at = Place{};
  ++b.generation;
  ++stats.barriers;
  wake_all(b.waiting, self);
}

bool same_place(const Place& a, const Place& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

}  // namespace

int block_barrier(int value, const char* what, const Place& at) {
  if (skipped(what, at)) return value;
  Block& block = *current->block;
  Barrier& b = block.barriers[0];
  if (b.arrived == 0) {
    b.at = at;
  } else if (options().strict && !same_place(b.at, at)) {
    fail("divergent barrier: this thread is at %s:%d, others of the block are at %s:%d",
         name_of(at), at.line, name_of(b.at), b.at.line);
  }
  const unsigned generation = b.generation & 1;
  tsan_release(&b.order[generation]);
  b.sum += value;
  append(b.waiting, current);
  if (++b.arrived == block.live) {
    complete(b, current);
    yield();
  } else {
    wait(what, at);
  }
  tsan_acquire(&b.order[generation]);
  return b.result[generation];
}

void thread_left_block(Block& block) {
  Barrier& b = block.barriers[0];
  if (b.arrived && b.arrived == block.live) complete(b, nullptr);
}

void named_barrier(int id, int threads, Arrival arrival, const Place& at) {
  if (id < 1 || id >= kNamedBarriers) {
    fail("%s:%d: named barrier %d: id is from 1 to %d", name_of(at), at.line, id,
         kNamedBarriers - 1);
  }
  if (threads <= 0 || threads % 32 || threads > int(current->block->num_threads + 31) / 32 * 32) {
    fail("%s:%d: named barrier %d of %d threads: expected a multiple of 32, no more than the block",
         name_of(at), at.line, id, threads);
  }
  Barrier& b = current->block->barriers[id];
  if (b.arrived && b.threads != threads) {
    fail("%s:%d: named barrier %d of %d threads, others of the block came for %d", name_of(at),
         at.line, id, threads, b.threads);
  }
  b.threads = threads;
  const unsigned generation = b.generation & 1;
  if (arrival != Arrival::kUnordered) tsan_release(&b.order[generation]);
  const bool waits = arrival == Arrival::kWait;
  if (waits) append(b.waiting, current);
  if (++b.arrived == unsigned(threads)) {
    complete(b, current);
    yield();
  } else if (waits) {
    wait("named_barrier_sync", at);
  }
  if (waits) tsan_acquire(&b.order[generation]);
}

void grid_barrier(const Place& at) {
  Launch& l = launched;
  if (!l.config->cooperative) {
    fail("%s:%d: grid.sync() in a launch that is not cooperative", name_of(at), at.line);
  }
  if (skipped("grid.sync", at)) return;
  char* order = &l.grid_order[l.grid_generation & 1];
  tsan_release(order);
  append(l.grid_waiting, current);
  if (++l.grid_arrived == l.threads) {
    l.grid_arrived = 0;
    ++l.grid_generation;
    ++stats.barriers;
    wake_all(l.grid_waiting, current);
    yield();
  } else {
    wait("grid.sync", at);
  }
  tsan_acquire(order);
}

}  // namespace hx
