// SPDX-License-Identifier: MIT
// Runs the threads of a launch, one at a time, in the order of the options' schedule.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <mutex>

#include "host_execution/internal.h"

namespace hx {

Launch launched;
Stats stats;

uint64_t random_below(uint64_t n) {
  uint64_t& x = launched.random;  // xorshift64*
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return uint64_t((unsigned __int128)(x * 0x9E3779B97F4A7C15u) * n >> 64);
}

void ReadyQueue::reserve(size_t threads) {
  if (threads <= ring_.size()) return;
  std::vector<Thread*> ring(std::max<size_t>(64, 2 * threads));
  for (size_t i = 0; i < size_; ++i) ring[i] = at(i);
  ring_.swap(ring);
  head_ = 0;
}

// ---- Waiting ------------------------------------------------------------------------------------

void append(List& list, Thread* t) {
  t->next = nullptr;
  (list.last ? list.last->next : list.first) = t;
  list.last = t;
}

void wake(Thread* t) {
  t->state = State::kReady;
  launched.ready.push_back(t);
}

void wake_all(List& list, Thread* but) {
  for (Thread *t = list.first, *next; t != nullptr; t = next) {
    next = t->next;
    if (t != but) wake(t);
  }
  list = List{};
}

namespace {

void leave_at(const char* what, const Place& at, State state) {
  current->waits_for = what;
  current->at = at;
  current->state = state;
  leave();
  current->waits_for = nullptr;
}

}  // namespace

void wait(const char* what, const Place& at) { leave_at(what, at, State::kWaiting); }

void yield() {
  wake(current);
  leave();
}

void spin(const Place& at) {
  ++stats.spins;
  leave_at("a loop that polls", at, State::kSpinning);
}

// ---- Blocks -------------------------------------------------------------------------------------

namespace {

void start_block(unsigned number) {
  Launch& l = launched;
  const dim3 grid = l.config->grid, dim = l.config->block;
  auto* b = new Block;
  b->number = number;
  b->index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
  b->block_dim = dim;
  b->grid_dim = grid;
  b->num_threads = b->live = dim.x * dim.y * dim.z;
  b->threads.reset(new Thread[b->num_threads]);
  b->warps.reset(new Warp[(b->num_threads + 31) / 32]);
  l.ready.reserve(l.ready.size() + l.alive + b->num_threads + 1);
  for (unsigned i = 0; i < b->num_threads; ++i) {
    Thread& t = b->threads[i];
    t.index = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
    t.rank = i;
    t.lane = i % 32;
    t.block = b;
    t.warp = &b->warps[i / 32];
    t.warp->live |= 1u << t.lane;
    if (t.lane == 0) t.warp->lanes = &t;
    t.fiber.tsan = take_tsan_fiber();
    l.ready.push_back(&t);
  }
  tsan_release(&l.start_order);
  b->next = l.resident;
  if (b->next) b->next->previous = b;
  l.resident = b;
  l.alive += b->num_threads;
  stats.threads += b->num_threads;
  stats.most_alive = std::max(stats.most_alive, l.alive);
}

void start_next_block() {
  const unsigned number = launched.waiting_blocks.back();
  launched.waiting_blocks.pop_back();
  start_block(number);
}

void remove_block(Block* b) {
  (b->previous ? b->previous->next : launched.resident) = b->next;
  if (b->next) b->next->previous = b->previous;
  free_shared(*b);
#if defined(HX_WITH_TSAN)
  launched.left_blocks.push_back(b);
#else
  delete b;
#endif
}

void free_thread(Thread& t) {
  give_back_tsan_fiber(t.fiber.tsan, t.state == State::kDone || t.state == State::kFresh);
#if defined(HX_WITH_TSAN)
  if (t.fiber.stack) launched.left_stacks.push_back(t.fiber.stack);
#else
  if (t.fiber.stack) give_back_stack(t.fiber.stack);
#endif
}

void end_thread(Thread* t) {
  Launch& l = launched;
  Block* b = t->block;
  free_thread(*t);
  t->warp->live &= ~(1u << t->lane);
  --b->live;
  --l.alive;
  --l.remaining;
  thread_left_warp(*t->warp);
  thread_left_block(*b);
  if (b->live) return;
  for (const BulkCopy& copy : l.bulk_copies) {
    if (copy.block == b) {
      fail("block %u ended with a bulk copy to its shared memory under way", b->number);
    }
  }
  remove_block(b);
  if (!l.waiting_blocks.empty()) start_next_block();
}

// ---- The loop -----------------------------------------------------------------------------------

Thread* pick() {
  ReadyQueue& q = launched.ready;
  switch (options().schedule) {
    case Schedule::kFifo:
      return q.pop_front();
    case Schedule::kLifo:
      return q.pop_back();
    default:
      std::swap(q.at(random_below(q.size())), q.at(q.size() - 1));
      return q.pop_back();
  }
}

void put_back_spinning(Thread* t) {
  Launch& l = launched;
  t->state = State::kWaiting;
  if (options().schedule == Schedule::kLifo) {
    l.ready.push_front(t);  // at the back it would be the next one, and no other ever
  } else {
    l.ready.push_back(t);
  }
  // Threads that switch at memory accesses may be long about what the others poll for.
  const uint64_t patience = options().preempt ? 256 : 1;
  if (++l.spin_streak <= patience * (4096 + 64 * l.ready.size())) return;
  if (l.bulk_copies.empty()) fail_stuck("livelock: only threads that poll are left");
  run_bulk_copy(random_below(l.bulk_copies.size()));
}

void run_threads() {
  Launch& l = launched;
  while (l.remaining) {
    const bool stopped = l.ready.size() == 0;
    if (stopped && l.bulk_copies.empty()) fail_stuck("deadlock: no thread can run");
    if (!l.bulk_copies.empty() && (stopped || random_below(16) == 0)) {
      run_bulk_copy(random_below(l.bulk_copies.size()));
      continue;
    }
    Thread* t = pick();
    resume(t);
    if (t->state == State::kSpinning) {
      put_back_spinning(t);
      continue;
    }
    if (!l.preempted) l.spin_streak = 0;
    l.preempted = false;
    if (t->state == State::kFailed) throw error;
    if (t->state == State::kDone) end_thread(t);  // and maybe its block: t is gone
  }
}

// ---- The launch ---------------------------------------------------------------------------------

void check_shape(const Config& c) {
  const dim3 g = c.grid, b = c.block;
  if (b.x == 0 || b.y == 0 || b.z == 0 || b.z > 64 || uint64_t(b.x) * b.y * b.z > 1024) {
    fail("block (%u,%u,%u): 1 to 1024 threads, at most 64 in z", b.x, b.y, b.z);
  }
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    fail("grid (%u,%u,%u): 1 to 2147483647, in y and z to 65535", g.x, g.y, g.z);
  }
  if (c.smem > options().shared_per_block) {
    fail("%zu bytes of dynamic shared memory, the limit is %zu", c.smem,
         options().shared_per_block);
  }
  const uint64_t blocks = uint64_t(g.x) * g.y * g.z;
  const uint64_t at_once =
      uint64_t(options().sms) * uint64_t(blocks_per_sm(b.x * b.y * b.z, c.smem));
  if (c.cooperative && blocks > at_once) {
    fail("cooperative launch of %llu blocks, at most %llu fit at once (%u multiprocessors)",
         (unsigned long long)blocks, (unsigned long long)at_once, options().sms);
  }
#if defined(HX_WITH_TSAN)
  const uint64_t live =
      (c.cooperative ? blocks : std::min<uint64_t>(blocks, options().resident)) * b.x * b.y * b.z;
  if (live > 8000) {
    fail("%llu threads at a time, ThreadSanitizer takes 8000: a smaller case, please",
         (unsigned long long)live);
  }
#endif
}

void start(const Config& config) {
  Launch& l = launched;
  stats = Stats{};
  l.random = options().seed * 0x9E3779B97F4A7C15u + 0x1234567;
  l.spin_streak = 0;
  l.grid_arrived = 0;
  // Here and not on a fiber, where it would count as an access.
  l.arena.take(1, 1);
  l.bulk_copies.reserve(4096);
  const uint64_t blocks = uint64_t(config.grid.x) * config.grid.y * config.grid.z;
  l.threads = l.remaining = blocks * config.block.x * config.block.y * config.block.z;
  l.waiting_blocks.resize(blocks);
  for (uint64_t i = 0; i < blocks; ++i) l.waiting_blocks[i] = unsigned(blocks - 1 - i);
  if (options().schedule == Schedule::kRandom) {
    for (uint64_t i = blocks; i > 1; --i) {
      std::swap(l.waiting_blocks[i - 1], l.waiting_blocks[random_below(i)]);
    }
  }
  const uint64_t resident =
      config.cooperative ? blocks : std::min<uint64_t>(blocks, std::max(1u, options().resident));
  for (uint64_t i = 0; i < resident; ++i) start_next_block();
}

// All that a thread has done so far comes before what follows the launch.
void release_end_order([[maybe_unused]] Thread& t) {
#if defined(HX_WITH_TSAN)
  void* main = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(t.fiber.tsan, 1);
  tsan_release(&launched.end_order);
  __tsan_switch_to_fiber(main, 1);
#endif
}

// After an error, threads are left where they are: their destructors do not run.
void finish() {
  Launch& l = launched;
  while (l.resident) {
    Block* b = l.resident;
    for (unsigned i = 0; i < b->num_threads; ++i) {
      if (b->threads[i].state == State::kDone) continue;
      release_end_order(b->threads[i]);
      free_thread(b->threads[i]);
    }
    remove_block(b);
  }
  tsan_acquire(&l.end_order);
  for (char* stack : l.left_stacks) give_back_stack(stack);
  for (Block* b : l.left_blocks) delete b;
#if defined(HX_WITH_TSAN)
  for (const BulkCopy& copy : l.bulk_copies) __tsan_destroy_fiber(copy.tsan);
#endif
  l.left_stacks.clear();
  l.left_blocks.clear();
  l.bulk_copies.clear();
  l.grid_waiting = List{};
  l.ready.clear();
  l.alive = 0;
  l.arena.reset();
  launch_ended();
}

}  // namespace

int blocks_per_sm(unsigned threads, size_t shared) {
  const Options& o = options();
  if (threads == 0 || threads > 1024 || shared > o.shared_per_block) return 0;
  constexpr size_t kReserved = 1024;  // bytes of shared memory that CUDA keeps of each block
  const size_t by_shared = (o.shared_per_block + kReserved) / (shared + kReserved);
  const size_t by_threads = o.threads_per_sm / ((threads + 31) / 32 * 32);
  return static_cast<int>(std::min({by_shared, by_threads, size_t(o.blocks_per_sm)}));
}

void run(const Config& config, const char* name, void (*body)(void*), void* arguments) {
  static std::mutex one_at_a_time;
  if (current != nullptr) fail("a kernel launches a kernel");
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  Launch& l = launched;
  l.config = &config;
  l.name = name;
  l.body = body;
  l.arguments = arguments;
  check_shape(config);
  const CrashReports crash_reports;
  const auto from = std::chrono::steady_clock::now();
  try {
    start(config);
    run_threads();
  } catch (const Error&) {
    finish();
    throw;
  }
  finish();
  stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

}  // namespace hx
