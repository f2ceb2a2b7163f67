// SPDX-License-Identifier: MIT
#include "cases/ptx_kernels.h"
#include "cuda/gpu/gpu.h"

namespace seq2seq_ext::kernel_bench::ptx {
namespace {

__global__ void votes_kernel(uint32_t mask, const uint32_t* in, uint32_t* out) {
  const int lane = int(threadIdx.x);
  if (!(mask >> lane & 1)) return;
  const uint32_t x = in[lane];
  int same = 0;
  const uint32_t results[kVotes] = {
      __ballot_sync(mask, int(x & 1)),
      uint32_t(__any_sync(mask, x % 7 == 0) != 0),
      uint32_t(__all_sync(mask, x % 7 != 0) != 0),
      __match_any_sync(mask, x % 5),
      __match_all_sync(mask, x / 0x10000000u, &same),
      __reduce_add_sync(mask, x),
      __reduce_min_sync(mask, x),
      __reduce_max_sync(mask, x),
      __reduce_and_sync(mask, x | 0xff),
      __reduce_or_sync(mask, x & 0xff00),
      __reduce_xor_sync(mask, x),
      uint32_t(__reduce_add_sync(mask, int(x))),
      uint32_t(__reduce_min_sync(mask, int(x))),
      uint32_t(__reduce_max_sync(mask, int(x))),
      __shfl_sync(mask, x, __ffs(int(mask)) - 1),
  };
  for (int i = 0; i < kVotes; ++i) out[32 * i + lane] = results[i];
}

__global__ void shuffles_kernel(int by, int width, const uint32_t* in, uint32_t* out) {
  const unsigned lane = threadIdx.x;
  const uint32_t x = in[lane];
  out[lane] = __shfl_sync(gpu::kAllLanes, x, by, width);
  out[32 + lane] = __shfl_up_sync(gpu::kAllLanes, x, unsigned(by), width);
  out[64 + lane] = __shfl_down_sync(gpu::kAllLanes, x, unsigned(by), width);
  out[96 + lane] = __shfl_xor_sync(gpu::kAllLanes, x, by, width);
}

template <class T>
__global__ void atomics_kernel(T* x) {
  const T t = T(threadIdx.x);
  atomicAdd(&x[0], t);
  atomicMax(&x[1], T(t * 7 % 64));
  atomicMin(&x[2], T(t * 7 % 64 + 3));
  T old = atomicAdd(&x[3], T(0)), assumed;
  do {
    assumed = old;
    old = atomicCAS(&x[3], assumed, T(uint64_t(assumed) * 3 + 1));
  } while (old != assumed);
  if (t == T(5)) x[4] = atomicExch(&x[5], T(77));
}

__global__ void bits_kernel(const uint32_t* a, const uint32_t* b, int count, uint32_t* out) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) {
    const uint32_t x = a[i], y = b[i];
    const uint32_t results[kBitFunctions] = {
        __umulhi(x, y),
        __brev(x),
        __byte_perm(x, y, y & 0x7777),
        __funnelshift_l(x, y, y % 32),
        __funnelshift_r(x, y, x % 32),
        uint32_t(__clz(int(x))),
        uint32_t(__ffs(int(x))),
        uint32_t(__popc(x)),
        __float_as_uint(__uint_as_float(x)),
    };
    for (int j = 0; j < kBitFunctions; ++j) out[j * count + i] = results[j];
  }
}

gpu::Config shape(unsigned block) {
  gpu::Config config;
  config.block = dim3(block);
  return config;
}

}  // namespace

bool votes(uint32_t mask, const uint32_t* in, uint32_t* out) {
  return GPU_LAUNCH(shape(32), votes_kernel, mask, in, out) == cudaSuccess;
}
bool shuffles(int by, int width, const uint32_t* in, uint32_t* out) {
  return GPU_LAUNCH(shape(32), shuffles_kernel, by, width, in, out) == cudaSuccess;
}
bool atomics(int* x) { return GPU_LAUNCH(shape(64), atomics_kernel<int>, x) == cudaSuccess; }
bool atomics(unsigned* x) {
  return GPU_LAUNCH(shape(64), atomics_kernel<unsigned>, x) == cudaSuccess;
}
bool atomics(uint64_t* x) {
  return GPU_LAUNCH(shape(64), atomics_kernel<uint64_t>, x) == cudaSuccess;
}
bool bits(const uint32_t* a, const uint32_t* b, int count, uint32_t* out) {
  return GPU_LAUNCH(shape(64), bits_kernel, a, b, count, out) == cudaSuccess;
}

}  // namespace seq2seq_ext::kernel_bench::ptx
