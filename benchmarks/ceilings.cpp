// SPDX-License-Identifier: MIT
// What this processor does at most, for ceilings.py: multiply-adds in registers, and memory read or
// copied at a given working set. Built for the machine it runs on.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>
#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kChains = 16;
#elif defined(__AVX__)
constexpr int kBytes = 32, kChains = 10;
#else
constexpr int kBytes = 16, kChains = 10;
#endif
constexpr int kLanes = kBytes / sizeof(float);
typedef float Vector __attribute__((vector_size(kBytes)));
using Body = std::function<void(int thread, long passes)>;

volatile float sink;

// From the first start to the last end, all threads having waited for each other.
double timed(int threads, long passes, const Body& body) {
  using Clock = std::chrono::steady_clock;
  std::atomic<int> ready{0};
  std::vector<Clock::time_point> start(threads), end(threads);
  auto run = [&](int thread) {
    body(thread, 1);
    ++ready;
    while (ready.load() < threads) std::this_thread::yield();
    start[thread] = Clock::now();
    body(thread, passes);
    end[thread] = Clock::now();
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(run, t);
  run(0);
  for (auto& other : others) other.join();
  auto first = *std::min_element(start.begin(), start.end());
  auto last = *std::max_element(end.begin(), end.end());
  return std::chrono::duration<double>(last - first).count();
}

// The best of five runs that take `seconds` or longer: work a second of all threads together.
double best_rate(int threads, double seconds, double work, const Body& body) {
  double best = 0;
  long passes = 1;
  for (int found = 0; found < 5;) {
    double time = timed(threads, passes, body);
    if (time < seconds) {
      passes = std::max(passes + 1, long(passes * std::min(8.0, 1.2 * seconds / time)));
      continue;
    }
    best = std::max(best, work * passes * threads / time);
    ++found;
  }
  return best;
}

void multiply_add(long passes) {
  Vector sums[kChains], x, y;
  for (int lane = 0; lane < kLanes; ++lane) x[lane] = 0.5f + sink, y[lane] = 0.25f;
  for (int chain = 0; chain < kChains; ++chain) sums[chain] = y * float(chain);  // none is another
  for (long pass = 0; pass < 1000 * passes; ++pass)
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * x + y;
  for (int chain = 1; chain < kChains; ++chain) sums[0] += sums[chain];
  sink = sums[0][0] * 0;
}

#if defined(__AVX512BF16__)
void multiply_add_bf16(long passes) {
  __m512 sums[kChains];
  for (int chain = 0; chain < kChains; ++chain) sums[chain] = _mm512_set1_ps(float(chain));
  __m512bh x = (__m512bh)_mm512_set1_epi32(sink == 0 ? 0x3c003c00 : 0);
  for (long pass = 0; pass < 1000 * passes; ++pass)
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = _mm512_dpbf16_ps(sums[chain], x, x);
  for (int chain = 1; chain < kChains; ++chain) sums[0] = _mm512_add_ps(sums[0], sums[chain]);
  sink = _mm512_cvtss_f32(sums[0]) * 0;
}
#endif

#if defined(__AVX512VNNI__)
void multiply_add_int8(long passes) {
  __m512i sums[kChains], x = _mm512_set1_epi32(sink == 0 ? 0x01010101 : 0);
  for (int chain = 0; chain < kChains; ++chain) sums[chain] = _mm512_set1_epi32(chain);
  for (long pass = 0; pass < 1000 * passes; ++pass)
    for (int chain = 0; chain < kChains; ++chain)
      sums[chain] = _mm512_dpbusd_epi32(sums[chain], x, x);
  for (int chain = 1; chain < kChains; ++chain) sums[0] = _mm512_add_epi32(sums[0], sums[chain]);
  sink = float(_mm512_cvtsi512_si32(sums[0])) * 0;
}
#endif

void read(const Vector* from, std::size_t count, long passes) {
  Vector sums[8] = {};
  for (long pass = 0; pass < passes; ++pass)
    for (std::size_t i = 0; i < count; i += 8)
      for (int j = 0; j < 8; ++j) sums[j] += from[i + j];
  for (int j = 1; j < 8; ++j) sums[0] += sums[j];
  sink = sums[0][0] * 0;
}

struct Free {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t(4096)); }
};
using Buffer = std::unique_ptr<void, Free>;

}  // namespace

extern "C" {

// Operations a second (two a multiply-add) on elements of so many bytes: float32, bfloat16, int8.
// 0 where the processor has no instruction for it.
double peak_rate(int bytes, int threads, double seconds) {
  double work = 2000.0 * kChains * kLanes;
  if (bytes == 4) return best_rate(threads, seconds, work, [](int, long n) { multiply_add(n); });
#if defined(__AVX512BF16__)
  if (bytes == 2)
    return best_rate(threads, seconds, 2 * work, [](int, long n) { multiply_add_bf16(n); });
#endif
#if defined(__AVX512VNNI__)
  if (bytes == 1)
    return best_rate(threads, seconds, 4 * work, [](int, long n) { multiply_add_int8(n); });
#endif
  return 0;
}

// Bytes a second, those read and those written; each thread has a working set of `bytes`.
double memory_rate(int copy, std::size_t bytes, int threads, double seconds) {
  std::size_t count = std::max<std::size_t>(1, bytes / kBytes / 16) * 16;
  std::vector<Buffer> buffers(threads);
  auto body = [&](int thread, long passes) {
    if (!buffers[thread]) {  // pages are where their thread is
      buffers[thread].reset(::operator new(count * kBytes, std::align_val_t(4096)));
      std::memset(buffers[thread].get(), 0, count * kBytes);
    }
    auto* all = static_cast<Vector*>(buffers[thread].get());
    if (!copy) return read(all, count, passes);
    for (long pass = 0; pass < passes; ++pass) {
      std::memcpy(all + count / 2, all, count / 2 * kBytes);
      asm volatile("" : : "r"(all) : "memory");
    }
  };
  return best_rate(threads, seconds, double(count) * kBytes, body);
}

}  // extern "C"
