// SPDX-License-Identifier: MIT
// Where the lanes of a warp meet.
#include <cstring>

#include "host_execution/internal.h"

namespace hx {

namespace {

// Executes the operation if all lanes that are to come have come; those that exited are not.
bool try_complete(Warp& warp, unsigned i, Thread* self) {
  Meeting& m = warp.open[i];
  const unsigned lanes = m.mask & warp.live;
  if ((m.arrived & lanes) != lanes) return false;
  ++stats.collectives;
  void* operands[32] = {};
  HX_FOR_LANES(lane, lanes) operands[lane] = warp.lanes[lane].operand;
  m.op->execute(lanes, operands);
  HX_FOR_LANES(lane, lanes) {
    if (&warp.lanes[lane] != self) wake(&warp.lanes[lane]);
  }
  warp.open[i] = warp.open[--warp.num_open];
  return true;
}

// The meeting of exactly these lanes. Other lanes may have other meetings open.
unsigned find_meeting(Warp& warp, const WarpOp& op, unsigned mask, const Place& at) {
  for (unsigned i = 0; i < warp.num_open; ++i) {
    if (warp.open[i].mask == mask) return i;
  }
  // A lane waits in one at most, so that 32 are enough.
  Meeting& m = warp.open[warp.num_open];
  m.mask = mask;
  m.arrived = 0;
  m.op = &op;
  m.at = at;
  m.order = &warp.order[warp.num_made++ % sizeof warp.order];
  return warp.num_open++;
}

}  // namespace

void warp_meet(const WarpOp& op, unsigned mask, void* operand, const Place& at) {
  Warp& warp = *current->warp;
  const unsigned lane = current->lane;
  if (!(mask >> lane & 1)) {
    fail("%s:%d: %s: lane %u calls and is not in the mask 0x%08x", name_of(at), at.line, op.name,
         lane, mask);
  }
  const unsigned i = find_meeting(warp, op, mask, at);
  Meeting& m = warp.open[i];
  const bool same_place = m.at.line == at.line && std::strcmp(m.at.file, at.file) == 0;
  if (m.op != &op || (options().strict && !same_place)) {
    fail("divergent warp: lane %u is in %s at %s:%d, others are in %s at %s:%d", lane, op.name,
         name_of(at), at.line, m.op->name, name_of(m.at), m.at.line);
  }
  m.arrived |= 1u << lane;
  current->operand = operand;
  char* order = op.orders_memory ? m.order : nullptr;
  if (order) tsan_release(order);
  if (try_complete(warp, i, current)) {
    yield();
  } else {
    wait(op.name, at);
  }
  if (order) tsan_acquire(order);
}

void thread_left_warp(Warp& warp) {
  for (unsigned i = 0; i < warp.num_open;) {
    if (!try_complete(warp, i, nullptr)) ++i;
  }
}

}  // namespace hx
