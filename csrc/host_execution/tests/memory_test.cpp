// SPDX-License-Identifier: MIT
// Shared memory, atomics, flags, loads, asynchronous and bulk copies.
#include <cmath>
#include <cstring>
#include <numeric>

#include "layer_test.h"

namespace hx_test {

// ---- Shared memory ------------------------------------------------------------------------------

namespace {

__global__ void first_values(int* bad, uintptr_t* addresses) {
  GPU_SHARED(float, floats, [5]);
  GPU_SHARED(int, scalar, );
  GPU_SHARED_ALIGNED(16, float, wide, [2][3]);
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  const float* a = carver.take<float>(3);
  const double* b = carver.take<double>(2, 8);
  const char* c = carver.take<char>(7, 32);
  const float* d = carver.take<float>(4, 16);
  int wrong = !std::isnan(floats[4]) + (scalar != -1) + !std::isnan(wide[1][2]);
  wrong += !std::isnan(a[2]) + !std::isnan(b[1]) + (c[6] != -1) + !std::isnan(d[0]);
  atomicAdd(bad, wrong);
  const void* const pieces[] = {a, b, c, d, floats, wide};
  for (int i = 0; i < 6; ++i) {
    addresses[6 * blockIdx.x + i] = reinterpret_cast<uintptr_t>(pieces[i]);
  }
}

__global__ void own_of_each_block(int* out) {
  GPU_SHARED(int, x, [1]);
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  int* y = carver.take<int>(1);
  if (threadIdx.x == 0) x[0] = int(blockIdx.x), y[0] = 2 * int(blockIdx.x);
  __syncthreads();
  gpu::spin_wait();
  out[blockIdx.x * blockDim.x + threadIdx.x] = x[0] + y[0];
}

}  // namespace

LAYER_TEST(shared_memory_is_poisoned_and_aligned_as_promised) {
  int bad = 0;
  std::vector<uintptr_t> at(2 * 6);
  GPU_LAUNCH(shape(2, 1, 87), first_values, &bad, at.data());
  EXPECT(bad == 0);
  for (int block = 0; block < 2; ++block) {
    const uintptr_t* p = &at[6 * block];
    EXPECT(p[0] % 128 == 0 && p[1] % 128 == 16 && p[2] % 128 == 32 && p[3] % 128 == 48);
    EXPECT(p[4] % 16 == 8);  // no more than float needs, in units that redzones can have
    EXPECT(p[5] % 32 == 16);
  }
}

LAYER_TEST(each_block_has_its_own_shared_memory) {
  std::vector<int> out(5 * 32);
  GPU_LAUNCH(shape(5, 32, 4), own_of_each_block, out.data());
  for (int i = 0; i < 5 * 32; ++i) EXPECT(out[i] == 3 * (i / 32));
}

// ---- Atomics, flags, loads ----------------------------------------------------------------------

namespace {

template <class T>
__global__ void atomics(T* x) {
  const T t = T(threadIdx.x);
  atomicAdd(&x[0], t);
  atomicSub(&x[1], t);
  atomicMax(&x[2], T(t * 7 % 64));
  atomicMin(&x[3], T(t * 7 % 64 + 3));
  atomicOr(&x[4], T(T(1) << t % 20));
  atomicAnd(&x[5], T(~(T(1) << t % 20)));
  atomicXor(&x[6], t);
  T seen = atomicAdd(&x[7], T(0)), assumed;
  do {
    assumed = seen;
    seen = atomicCAS(&x[7], assumed, T(assumed + 2));
  } while (seen != assumed);
  if (t == T(5)) x[8] = atomicExch(&x[9], T(77));
}

template <class T>
void check_atomics() {
  std::vector<T> x{0, 3000, 0, 1000, 0, T(-1), 0, 1, 0, 33};
  GPU_LAUNCH(shape(1, 64), atomics<T>, x.data());
  EXPECT(x[0] == 2016 && x[1] == 984 && x[2] == 63 && x[3] == 3);
  EXPECT(x[4] == 0xfffff && x[5] == T(~T(0xfffff)) && x[6] == 0 && x[7] == 129);
  EXPECT(x[8] == 33 && x[9] == 77);
}

__global__ void tickets(unsigned* x, int* seen) {
  seen[gpu::atomic_add_acq_rel(&x[0], 1)] = 1;
  gpu::red_release(&x[1], 2);
  atomicInc(&x[2], 9);
  if (threadIdx.x == 0) gpu::st_release(&x[3], 5), gpu::st_relaxed(&x[4], 6);
  if (threadIdx.x == 1) {
    while (gpu::ld_acquire(&x[3]) != 5 || gpu::ld_relaxed(&x[4]) != 6) gpu::spin_wait();
  }
}

__global__ void loads(const uint4* in, uint4* out) {
  const int t = threadIdx.x;
  const uint4 a = gpu::ld_cg16(in + t), b = gpu::ld_stream16(in + t), c = __ldg(in + t);
  gpu::prefetch_l2(in);
  gpu::st_cg16(out + t, uint4{a.x, b.y, c.z, __ldcg(&in[t].w)});
}

__global__ void bits(unsigned* out) {
  out[0] = __umulhi(0x89abcdefu, 0xfedcba98u);
  out[1] = __brev(0x00000013u);
  out[2] = __byte_perm(0x03020100u, 0x07060504u, 0x7140u);
  out[3] = __byte_perm(0x80u, 0x7fu, 0x8c04u);
  out[4] = __funnelshift_l(0x12345678u, 0x9abcdef0u, 8);
  out[5] = __funnelshift_r(0x12345678u, 0x9abcdef0u, 8);
  out[6] = unsigned(__clz(0) + __clz(1) + __ffs(8) + __popc(0xf0f0u));
  out[7] = __float_as_uint(gpu::tanh_approx(0.25f));
  out[8] = gpu::to_tf32(__uint_as_float(0x3f801000u));  // a tie: away from zero
  out[9] = gpu::to_tf32(__uint_as_float(0xbf800fffu));
}

}  // namespace

LAYER_TEST(atomics) {
  check_atomics<int>();
  check_atomics<unsigned>();
  check_atomics<unsigned long long>();
  check_atomics<uint64_t>();
}

LAYER_TEST(flags_and_tickets) {
  std::vector<unsigned> x(5, 0);
  std::vector<int> seen(64, 0);
  GPU_LAUNCH(shape(1, 64), tickets, x.data(), seen.data());
  EXPECT(std::accumulate(seen.begin(), seen.end(), 0) == 64);
  EXPECT((x == std::vector<unsigned>{64, 128, 4, 5, 6}));
}

LAYER_TEST(sixteen_bytes) {
  std::vector<uint4> in(32), out(32);
  for (unsigned i = 0; i < 32; ++i) in[i] = {i, i + 100, i + 200, i + 300};
  GPU_LAUNCH(shape(1, 32), loads, in.data(), out.data());
  EXPECT(std::memcmp(in.data(), out.data(), sizeof(uint4) * 32) == 0);
}

LAYER_TEST(intrinsics) {
  std::vector<unsigned> out(10);
  GPU_LAUNCH(shape(1, 1), bits, out.data());
  EXPECT(out[0] == 0x890f2a50u);
  EXPECT(out[1] == 0xc8000000u);
  EXPECT(out[2] == 0x07010400u);
  EXPECT(out[3] == 0xff00807fu);
  EXPECT(out[4] == 0xbcdef012u && out[5] == 0xf0123456u);
  EXPECT(out[6] == 32 + 31 + 4 + 8);
  EXPECT(std::fabs(__uint_as_float(out[7]) / std::tanh(0.25) - 1) < 1.0 / 2048);
  EXPECT(out[8] == 0x3f802000u && out[9] == 0xbf800000u);
}

// ---- Asynchronous copies ------------------------------------------------------------------------

namespace {

// Two groups: after wait<1> the first is there, after wait<0> both.
__global__ void copy_groups(const float* in, int wait, float* out) {
  GPU_SHARED_ALIGNED(16, float, x, [2][128]);
  const int t = threadIdx.x;
  for (int group = 0; group < 2; ++group) {
    gpu::cp_async16(&x[group][4 * t], in + 128 * group + 4 * t);
    gpu::cp_async_commit();
  }
  if (wait == 0) gpu::cp_async_wait<0>();
  if (wait == 1) gpu::cp_async_wait<1>();
  for (int i = 0; i < 4; ++i) {
    for (int group = 0; group < 2; ++group) out[128 * group + 4 * t + i] = x[group][4 * t + i];
  }
}

// Sizes, and zeros for what is not read.
__global__ void copy_sizes(const char* in, unsigned bytes, char* out) {
  GPU_SHARED_ALIGNED(16, char, x, [3][16]);
  gpu::cp_async16(x[0], in, bytes);
  gpu::cp_async<8>(x[1], in + 8, bytes / 2);
  gpu::cp_async<4>(x[2], bytes / 4 ? in + 4 : nullptr, bytes / 4);
  gpu::cp_async_commit();
  gpu::cp_async_wait<0>();
  for (int i = 0; i < 16; ++i) {
    out[i] = x[0][i];
    if (i < 8) out[16 + i] = x[1][i];
    if (i < 4) out[24 + i] = x[2][i];
  }
}

int stale(hx::Copies copies, int wait, int group) {
  std::vector<float> in(256), out(256, -1.f);
  std::iota(in.begin(), in.end(), 0.f);
  with_options([&](hx::Options& o) { o.copies = copies; },
               [&] { GPU_LAUNCH(shape(1, 32), copy_groups, in.data(), wait, out.data()); });
  int count = 0;
  for (int i = 128 * group; i < 128 * group + 128; ++i) count += out[i] != in[i];
  return count;
}

}  // namespace

LAYER_TEST(copies_are_there_after_their_wait_and_not_before) {
  EXPECT(stale(hx::Copies::kMixed, 0, 0) == 0 && stale(hx::Copies::kMixed, 0, 1) == 0);
  EXPECT(stale(hx::Copies::kLazy, 1, 0) == 0 && stale(hx::Copies::kLazy, 1, 1) == 128);
  EXPECT(stale(hx::Copies::kLazy, 2, 0) == 128);  // no wait
#if !defined(__SANITIZE_THREAD__)                 // there, copies are always late
  EXPECT(stale(hx::Copies::kEager, 2, 1) == 0);
  const int some = stale(hx::Copies::kMixed, 2, 0);
  EXPECT(some > 0 && some < 128);
#endif
}

LAYER_TEST(copies_fill_with_zeros) {
  alignas(16) char in[16];
  for (int i = 0; i < 16; ++i) in[i] = char(i + 1);
  for (unsigned bytes = 0; bytes <= 16; ++bytes) {
    std::vector<char> out(28, -1);
    GPU_LAUNCH(shape(1, 1), copy_sizes, in, bytes, out.data());
    bool right = true;
    for (unsigned i = 0; i < 16; ++i) right &= out[i] == (i < bytes ? in[i] : 0);
    for (unsigned i = 0; i < 8; ++i) right &= out[16 + i] == (i < bytes / 2 ? in[8 + i] : 0);
    for (unsigned i = 0; i < 4; ++i) right &= out[24 + i] == (i < bytes / 4 ? in[4 + i] : 0);
    EXPECT(right);
  }
}

// ---- Barriers in shared memory, bulk copies -----------------------------------------------------

namespace {

constexpr int kTile = 64;

// Thread 0 keeps two stages full; all the others read a stage and say that it is free.
__global__ void bulk_pipeline(const float* in, int tiles, float* out) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  float* stages = carver.take<float>(2 * kTile, 128);
  uint64_t* full = carver.take<uint64_t>(2);
  uint64_t* empty = carver.take<uint64_t>(2);
  const int t = threadIdx.x;
  if (t == 0) {
    for (int s = 0; s < 2; ++s) {
      gpu::mbar_init(&full[s], 1);
      gpu::mbar_init(&empty[s], blockDim.x - 1);
    }
    gpu::fence_mbar_init();
  }
  __syncthreads();
  for (int i = 0; i < tiles; ++i) {
    const int stage = i % 2, round = i / 2;
    if (t == 0) {
      if (round > 0) gpu::mbar_wait(&empty[stage], (round - 1) & 1);
      gpu::mbar_arrive_expect_tx(&full[stage], kTile * sizeof(float));
      gpu::bulk_copy_g2s(stages + stage * kTile, in + i * kTile, kTile * sizeof(float) / 2,
                         &full[stage]);
      gpu::bulk_copy_g2s(stages + stage * kTile + kTile / 2, in + i * kTile + kTile / 2,
                         kTile * sizeof(float) / 2, &full[stage]);
    } else {
      gpu::mbar_wait(&full[stage], round & 1);
      for (int j = t - 1; j < kTile; j += int(blockDim.x) - 1) {
        out[i * kTile + j] = 2 * stages[stage * kTile + j];
      }
      gpu::mbar_arrive(&empty[stage]);
    }
  }
}

// A barrier by arrivals alone, over several phases.
__global__ void arrivals(int phases, int* out) {
  GPU_SHARED(int, x, [33]);
  GPU_SHARED(uint64_t, barrier, [1]);
  const int t = threadIdx.x;
  if (t == 0) gpu::mbar_init(barrier, blockDim.x);
  __syncthreads();
  int v = t;
  for (int i = 0; i < phases; ++i) {
    x[t] = v;
    gpu::mbar_arrive(barrier);
    while (!gpu::mbar_try_wait(barrier, 2 * i & 1)) {
    }
    v = x[(t + 1) % 33];
    gpu::mbar_arrive(barrier);
    gpu::mbar_wait(barrier, (2 * i + 1) & 1);
  }
  out[t] = v;
}

}  // namespace

LAYER_TEST(bulk_copies_through_a_pipeline) {
  constexpr int kTiles = 7;
  alignas(16) static float in[kTiles * kTile];
  std::iota(in, in + kTiles * kTile, 0.f);
  std::vector<float> out(kTiles * kTile, -1);
  GPU_LAUNCH(shape(1, 41, 1024), bulk_pipeline, in, kTiles, out.data());
  bool right = true;
  for (int i = 0; i < kTiles * kTile; ++i) right &= out[i] == 2 * in[i];
  EXPECT(right);
}

LAYER_TEST(arrivals_end_phases) {
  std::vector<int> out(33);
  GPU_LAUNCH(shape(1, 33), arrivals, 5, out.data());
  for (int t = 0; t < 33; ++t) EXPECT(out[t] == (t + 5) % 33);
}

}  // namespace hx_test
