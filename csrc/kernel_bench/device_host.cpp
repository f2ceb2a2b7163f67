// SPDX-License-Identifier: MIT
// Host execution: device memory is memory, a launch is a call, the product is three loops.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "cuda/math.cuh"
#include "device.h"

namespace seq2seq_ext::kernel_bench {
namespace {

std::vector<void*> work_memory;

void* work(int64_t bytes, void*) {
  work_memory.push_back(allocate(bytes));
  return work_memory.back();
}

template <class T, class C>
void multiply(const kernels::GemmParams& p) {
  using namespace kernels::cuda;
  const T* a = static_cast<const T*>(p.a);
  const T* b = static_cast<const T*>(p.b);
  C* c = static_cast<C*>(p.c);
  using Sum = std::conditional_t<sizeof(T) == 8, long double, double>;
  std::vector<Sum> row(p.n);
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      row[j] = p.accumulate ? Sum(to_acc(c[i * p.c_stride_m + j])) : Sum(0);
    }
    for (int64_t k = 0; k < p.k; ++k) {
      const Sum x = to_acc(a[i * p.a_stride_m + k * p.a_stride_k]);
      const T* from = b + k * p.b_stride_k;
      for (int64_t j = 0; j < p.n; ++j) row[j] += x * Sum(to_acc(from[j * p.b_stride_n]));
    }
    for (int64_t j = 0; j < p.n; ++j) {
      c[i * p.c_stride_m + j] = from_acc<C>(static_cast<AccOf<C>>(row[j]));
    }
  }
}

bool product(const kernels::GemmParams& p, void*, void*) {
  kernels::cuda::dispatch_dtype(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      if (p.wide) return multiply<T, float>(p);
    }
    multiply<T, T>(p);
  });
  return true;
}

}  // namespace

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes > 0 ? bytes : 1) != 0) throw std::bad_alloc();
  std::memset(memory, 0xff, bytes);
  return memory;
}
void release(void* memory) { std::free(memory); }
void to_device(void* device, const void* host, int64_t bytes) {
  if (bytes > 0) std::memcpy(device, host, bytes);  // an empty vector has no address
}
void to_host(void* host, const void* device, int64_t bytes) {
  if (bytes > 0) std::memcpy(host, device, bytes);
}
void synchronize() {}
std::string device_name() { return "host execution"; }
kernels::cuda::Device device() { return {}; }

kernels::cuda::Runtime runtime(const kernels::cuda::Device& device, bool own_gemm) {
  // The layer refuses what this device would.
  const bool small = device.arch == 86 || device.arch == 89 || device.arch == 120;
  hx::options().sms = static_cast<unsigned>(device.sms);
  hx::options().shared_per_block = static_cast<size_t>(device.shared_per_block);
  hx::options().threads_per_sm = small ? 1536 : 2048;
  hx::options().blocks_per_sm = device.arch == 86 ? 16 : small ? 24 : 32;

  kernels::cuda::Runtime r;
  r.device = device;
  r.allocate = work;
  r.gemm = own_gemm ? nullptr : product;
  return r;
}

void release_work_memory() {
  for (void* memory : work_memory) release(memory);
  work_memory.clear();
}

void set_schedule(const std::string& order, const std::string& seed) {
  static const hx::Options given = hx::options();
  hx::options() = given;
  if (order == "fifo") {
    hx::options().schedule = hx::Schedule::kFifo;
  } else if (order == "lifo") {
    hx::options().schedule = hx::Schedule::kLifo;
  } else if (order == "random") {
    hx::options().schedule = hx::Schedule::kRandom;
  } else if (!order.empty()) {
    throw std::invalid_argument("sched: expected fifo, lifo or random, got " + order);
  }
  if (!seed.empty()) hx::options().seed = std::stoull(seed);
}

void end_of_run(double seconds) {
  std::printf("took %.3f s\n", seconds);
  if (hx::options().list_sites) hx::print_sites();
}

double seconds(void (*)(void*), void*, int) { return 0; }

}  // namespace seq2seq_ext::kernel_bench
