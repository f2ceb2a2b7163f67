// SPDX-License-Identifier: MIT
// What the files of the layer share. Not for kernels.
//
// Under ThreadSanitizer nothing here may call malloc or free on a fiber: they would count as
// accesses of that CUDA thread. Lists are therefore intrusive, and what grows on a fiber comes from
// an arena that is emptied when the launch ends.
#pragma once

#include <memory>
#include <vector>

#include "host_execution/ptx_host.h"
// The kernel's words for them are macros; this is host code.
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

#if defined(__SANITIZE_ADDRESS__)
#define HX_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(HX_WITH_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace hx {

constexpr size_t kMaxDynamicPieces = 64, kMaxStaticArrays = 64;
constexpr size_t kStaticLimit = 48 << 10;
constexpr size_t kMostShared = 256 << 10;
constexpr int kNamedBarriers = 16;

struct List {
  Thread *first = nullptr, *last = nullptr;
};

// ---- Copies (copies.cpp) ------------------------------------------------------------------------

struct Copy {
  void* to;
  const void* from;
  unsigned bytes, source_bytes, group;
};
// One thread's copies that have not happened yet, oldest first.
struct CopyQueue {
  Copy* copies = nullptr;
  unsigned head = 0, tail = 0, capacity = 0, group = 0;
};
struct BulkCopy {
  Copy copy;
  uint64_t* barrier;
  Block* block;
  void* tsan;  // a fiber of its own
};
void run_bulk_copy(size_t i);
void finish_copies();  // of a thread that ends

// ---- Warps and blocks ---------------------------------------------------------------------------

// Lanes of one mask on their way into one operation.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  const WarpOp* op = nullptr;
  Place at;
  char* order = nullptr;  // stands for the operation towards ThreadSanitizer
};
struct Warp {
  unsigned live = 0;  // lanes that have not exited
  Thread* lanes = nullptr;
  unsigned num_open = 0, num_made = 0;
  Meeting open[32];
  char order[64];
};
struct Barrier {
  int threads = 0;  // of a named barrier
  unsigned arrived = 0, generation = 0;
  int sum = 0, result[2] = {0, 0};
  Place at;
  List waiting;
  char order[2];
};
struct Piece {
  const void* tag;
  size_t offset, bytes;
  char *memory, *allocation;
};
struct Block : BlockView {
  unsigned number = 0, num_threads = 0, live = 0;
  Block *previous = nullptr, *next = nullptr;  // resident blocks
  std::unique_ptr<Thread[]> threads;
  std::unique_ptr<Warp[]> warps;
  Barrier barriers[kNamedBarriers];
  size_t static_bytes = 0;
  Piece statics[kMaxStaticArrays], pieces[kMaxDynamicPieces];
  unsigned num_statics = 0, num_pieces = 0;
};
void free_shared(Block& block);
void thread_left_warp(Warp& warp);  // completes what waited for it only
void thread_left_block(Block& block);

// ---- The launch ---------------------------------------------------------------------------------

// Threads that can run; grows on the main context only.
class ReadyQueue {
 public:
  void reserve(size_t threads);
  void push_back(Thread* t) { at(size_++) = t; }
  void push_front(Thread* t) {
    head_ = (head_ ? head_ : ring_.size()) - 1;
    ring_[head_] = t;
    ++size_;
  }
  Thread* pop_front() {
    Thread* t = ring_[head_];
    if (++head_ == ring_.size()) head_ = 0;
    --size_;
    return t;
  }
  Thread* pop_back() { return at(--size_); }
  Thread*& at(size_t i) {
    const size_t k = head_ + i;
    return ring_[k >= ring_.size() ? k - ring_.size() : k];
  }
  size_t size() const { return size_; }
  void clear() { size_ = 0; }

 private:
  std::vector<Thread*> ring_;
  size_t head_ = 0, size_ = 0;
};

// Memory for what fibers ask for, in address space that is reserved once.
class Arena {
 public:
  char* take(size_t bytes, size_t align);
  void reset() { used_ = 0; }

 private:
  char* base_ = nullptr;
  size_t used_ = 0;
};

struct Launch {
  const Config* config = nullptr;
  const char* name = "";
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;

  ReadyQueue ready;
  Arena arena;
  Block* resident = nullptr;
  std::vector<unsigned> waiting_blocks;  // numbers, the next one last
  std::vector<BulkCopy> bulk_copies;
  uint64_t threads = 0, remaining = 0, alive = 0;
  uint64_t spin_streak = 0;  // threads in a row that only polled
  bool preempted = false;    // the last one stopped at a memory access
  uint64_t random = 1;

  unsigned grid_arrived = 0, grid_generation = 0;
  List grid_waiting;
  char grid_order[2], start_order, end_order;

  // Under ThreadSanitizer freed when the launch ends: a second use would look like a race.
  std::vector<char*> left_stacks;
  std::vector<Block*> left_blocks;
};
extern Launch launched;

uint64_t random_below(uint64_t n);

// ---- Waiting (scheduler.cpp)
// ----------------------------------------------------------------------

void append(List& list, Thread* t);
void wake(Thread* t);
void wake_all(List& list, Thread* but);
// Returns when another thread has woken this one.
void wait(const char* what, const Place& at);
// Lets the others run.
void yield();

// ---- Fibers (fibers.cpp)
// --------------------------------------------------------------------------

void resume(Thread* t);     // main -> thread; returns at the thread's next leave()
void leave();               // thread -> main
void run_current_thread();  // the body of a fiber
char* take_stack();
void give_back_stack(char* stack);
size_t stack_bytes();

// ThreadSanitizer's fibers, each a millisecond to make. One is used again in the next launch and
// not in this one: two threads on one fiber would count as one after the other.
void* take_tsan_fiber();
void give_back_tsan_fiber(void* fiber, bool ended);
void launch_ended();

// ---- Errors (errors.cpp)
// --------------------------------------------------------------------------

extern Error error;
// Ends the launch: nothing can run any more. Lists where the threads are.
[[noreturn]] void fail_stuck(const char* kind);
// While it lives, a crash of a kernel names the thread.
class CrashReports {
 public:
  CrashReports();
  ~CrashReports();
};

// ---- ThreadSanitizer
// ------------------------------------------------------------------------------ The scheduler says
// what is a thread and what orders threads; its own accesses are not watched.

#if defined(HX_WITH_TSAN)
inline void tsan_release(void* p) { __tsan_release(p); }
inline void tsan_acquire(void* p) { __tsan_acquire(p); }
#else
inline void tsan_release(void*) {}
inline void tsan_acquire(void*) {}
#endif

}  // namespace hx
