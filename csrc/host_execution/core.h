// SPDX-License-Identifier: MIT
// What a program needs to run kernels and what the headers of the layer share: options, errors,
// threads, launch. Without the macros of host_execution.h, so that host code can include it.
//
// Every CUDA thread is a fiber; all fibers run on the operating system's thread that launches, one
// at a time, and give way only where CUDA threads meet or wait. The same seed gives the same run.
#pragma once

#include <cuda_runtime_api.h>  // types only: dim3, uint3, cudaError_t; no CUDA library is linked

#include <cstddef>
#include <cstdint>
#include <exception>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/gpu/config.h"

namespace hx {

using gpu::Config;

// A line of a kernel. `Place at = HX_HERE` as last parameter: the line of the call.
struct Place {
  const char* file;
  int line;
  // GCC takes the line of the call in the arguments of a constructor, not in braces.
  constexpr Place(const char* f = nullptr, int l = 0) : file(f), line(l) {}
};
#define HX_HERE ::hx::Place(__builtin_FILE(), __builtin_LINE())
// The file without its folders.
const char* name_of(const Place& at);

// ---- Options ------------------------------------------------------------------------------------

enum class Schedule { kFifo, kLifo, kRandom };
enum class Copies {
  kEager,
  kLazy,
  kMixed
};  // when asynchronous copies happen: issue, wait, either

// The first use reads them from the environment, HOST_EXECUTION_<name>.
struct Options {
  Schedule schedule = Schedule::kRandom;  // SCHED=fifo|lifo|random
  uint64_t seed = 1;                      // SEED
  Copies copies = Copies::kMixed;         // ASYNC=eager|lazy|mixed
  unsigned resident = 3;                  // RESIDENT: blocks at a time; cooperative: all
  bool strict = true;       // STRICT: a barrier's threads, a warp's lanes have to meet in one place
  unsigned preempt = 0;     // PREEMPT=n: switch at one of n memory accesses (preempt.cpp)
  const char* skip = "";    // SKIP=file:line,...: leave these synchronisations out
  bool list_sites = false;  // SITES: keep a list of the synchronisations reached
  size_t stack_bytes = 0;   // STACK (KiB): of a thread

  // The device: what a launch may ask for. An H200's unless the program says otherwise.
  size_t shared_per_block = 227 << 10;
  unsigned sms = 132;
  unsigned threads_per_sm = 2048, blocks_per_sm = 32;
};
Options& options();

// ---- Errors -------------------------------------------------------------------------------------

// What a kernel did wrong and where. Thrown by launch(); the state of the kernel's memory is then
// as it was, its threads are gone.
struct Error : std::exception {
  char text[2048] = "";
  const char* what() const noexcept override { return text; }
};
// Ends the launch with an Error that names the kernel, the block and the thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ---- Synchronisation sites
// ------------------------------------------------------------------------

// A place where a kernel synchronises. Those reached by launches are listed where
// Options::list_sites is set; one named by Options::skip does nothing.
struct Site {
  const char* what = nullptr;
  Place at;
  uint64_t times = 0;
};
extern bool watching_sites;
bool site_skipped(const char* what, const Place& at);
inline bool skipped(const char* what, const Place& at) {
  return __builtin_expect(watching_sites, false) && site_skipped(what, at);
}
// Prints "site <file>:<line> <times> <what>" for each, and forgets them.
void print_sites();

// ---- Threads ------------------------------------------------------------------------------------

struct Block;
struct Warp;
struct CopyQueue;

enum class State { kFresh, kReady, kSpinning, kWaiting, kDone, kFailed };

struct Fiber {
  void* stack_pointer = nullptr;  // while it does not run
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;        // ThreadSanitizer's name for it
};

// One CUDA thread.
struct Thread {
  uint3 index{};                // threadIdx
  unsigned rank = 0, lane = 0;  // in its block, in its warp
  State state = State::kFresh;
  Block* block = nullptr;
  Warp* warp = nullptr;
  const char* waits_for = nullptr;
  Place at;                 // where it waits
  Thread* next = nullptr;   // in a list of waiting threads
  void* operand = nullptr;  // of the warp operation it waits in
  CopyQueue* copies = nullptr;
  Fiber fiber;
};
extern __thread Thread* current;

// What of a block the kernel sees; a Block starts with it.
struct BlockView {
  uint3 index;  // blockIdx
  dim3 block_dim, grid_dim;
};
inline const BlockView& block() { return *reinterpret_cast<const BlockView*>(current->block); }

// ---- Launch -------------------------------------------------------------------------------------

// Of the last launch.
struct Stats {
  uint64_t threads = 0, most_alive = 0;  // all, at a time
  uint64_t resumes = 0, barriers = 0, collectives = 0, spins = 0;
  double seconds = 0;
};
extern Stats stats;

void run(const Config& config, const char* name, void (*body)(void*), void* arguments);

// Runs the kernel to its end. Throws Error.
template <class... Params, class... Args>
cudaError_t launch(const Config& config, const char* name, void (*kernel)(Params...),
                   Args&&... args) {
  static_assert((std::is_trivially_copyable_v<Params> && ...), "kernel parameters are copied");
  struct Call {
    void (*kernel)(Params...);
    std::tuple<Params...> arguments;
  } call{kernel, std::tuple<Params...>(std::forward<Args>(args)...)};
  const auto body = [](void* c) {
    std::apply(static_cast<Call*>(c)->kernel, static_cast<Call*>(c)->arguments);
  };
  run(config, name, body, &call);
  return cudaSuccess;
}

// Blocks of this size that a multiprocessor holds by threads and shared memory; registers are not
// known here.
int blocks_per_sm(unsigned threads, size_t shared);
template <class Kernel>
int max_active_blocks(Kernel*, int threads, size_t shared) {
  return blocks_per_sm(static_cast<unsigned>(threads), shared);
}

}  // namespace hx

// Functions of the layer with atomics in them: inlined, so that they are instrumented where the
// kernel that calls them is, whatever else was compiled without.
#define HX_INLINE inline __attribute__((always_inline))
// The layer's own work on other threads' operands, not to be taken for the kernel's.
#define HX_UNWATCHED __attribute__((no_sanitize("thread"), noinline))
