// SPDX-License-Identifier: MIT
// default_runtime(): a persistent pool of std::threads for the kernels on their own (the kernel
// tests and benchmarks).
#include "common/runtime.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace seq2seq_ext::kernels {
namespace {

constexpr int kMaxThreads = 256;

using Task = void (*)(int64_t begin, int64_t end, void* context);

// Set while this thread runs a chunk, so that a parallel_for inside one stays on it.
thread_local bool inside_region = false;

class Region {
 public:
  Region() : outer_(std::exchange(inside_region, true)) {}
  ~Region() { inside_region = outer_; }

 private:
  bool outer_;
};

// One call at a time: a second caller waits for its turn. Between calls the workers sleep.
class ThreadPool {
 public:
  void run(int64_t count, int64_t chunk, Task task, void* context) {
    const int workers = static_cast<int>((count + chunk - 1) / chunk) - 1;
    std::lock_guard<std::mutex> turn(turn_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      // Chunks may wait for each other, so either all have a thread or there is only one.
      const Job job = grow(workers) ? Job{count, chunk, task, context, workers}
                                    : Job{count, count, task, context, 0};
      job_ = job;
      running_ = job.workers;
      ++generation_;
    }
    wake_.notify_all();
    run_chunk(0, job_);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  struct Job {
    int64_t count, chunk;
    Task task;
    void* context;
    int workers;
  };

  static void run_chunk(int64_t index, const Job& job) {
    Region region;
    job.task(index * job.chunk, std::min(job.count, (index + 1) * job.chunk), job.context);
  }

  bool grow(int workers) {
    try {
      for (; size_ < workers; ++size_) {
        std::thread(&ThreadPool::work, this, size_ + 1, generation_).detach();
      }
    } catch (const std::exception&) {
      return false;  // no more threads to be had
    }
    return true;
  }

  void work(int index, uint64_t seen) {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index > job_.workers) continue;
      const Job job = job_;
      lock.unlock();
      run_chunk(index, job);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  Job job_{};
  int size_ = 0, running_ = 0;
  uint64_t generation_ = 0;
};

// Never destroyed: its threads sleep in it until the process ends. A child of fork() has none of
// its parent's threads, so it gets a pool of its own.
ThreadPool& pool() {
  static std::mutex mutex;
  static ThreadPool* instance = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (const pid_t self = getpid(); owner != self) {
    instance = new ThreadPool;
    owner = self;
  }
  return *instance;
}

// The number of threads is part of the function, since a Runtime has no other state: two runtimes
// never disturb each other.
template <int kThreads>
void parallel_for(int64_t count, Task task, void* context) {
  if (count <= 0) return;
  const int64_t chunk = (count + kThreads - 1) / kThreads;
  if (chunk == count || inside_region) {
    Region region;
    task(0, count, context);
    return;
  }
  pool().run(count, chunk, task, context);
}

using ParallelFor = void (*)(int64_t count, Task task, void* context);

template <int... kIndex>
constexpr std::array<ParallelFor, sizeof...(kIndex)> make_table(
    std::integer_sequence<int, kIndex...>) {
  return {&parallel_for<kIndex + 1>...};
}

constexpr auto kTable = make_table(std::make_integer_sequence<int, kMaxThreads>());

}  // namespace

Runtime default_runtime(int num_threads) {
  if (num_threads <= 0) num_threads = static_cast<int>(std::thread::hardware_concurrency());
  num_threads = std::clamp(num_threads, 1, kMaxThreads);
  Runtime runtime;
  runtime.num_threads = num_threads;
  runtime.parallel_for = kTable[num_threads - 1];
  return runtime;
}

}  // namespace seq2seq_ext::kernels
