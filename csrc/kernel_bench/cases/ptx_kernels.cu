// SPDX-License-Identifier: MIT
#include <exception>

#include "cases/ptx_kernels.h"
#include "cuda/gpu/gpu.h"

namespace seq2seq_ext::kernel_bench::ptx {
namespace {

gpu::Config shape(unsigned grid, unsigned block, size_t smem = 0) {
  gpu::Config config;
  config.grid = dim3(grid);
  config.block = dim3(block);
  config.smem = smem;
  return config;
}

// ---- Lanes --------------------------------------------------------------------------------------

__global__ void lanes_kernel(uint32_t* out) {
  const unsigned t = threadIdx.x;
  out[t] = gpu::lane_id();
  out[32 + t] = gpu::lane_mask_lt();
  out[64 + t] = gpu::lane_mask_le();
  out[96 + t] = gpu::lane_mask_gt();
  out[128 + t] = gpu::lane_mask_ge();
}

// ---- Tensor cores -------------------------------------------------------------------------------

template <class T>
__device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T tag) {
  gpu::mma_m16n8k16(d, a, b, tag);
}
__device__ inline void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                float) {
  gpu::mma_m16n8k8_tf32(d, a, b);
}
template <class T>
__global__ void mma_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  const unsigned t = threadIdx.x;
  uint32_t ra[4], rb[2];
  float rd[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[4 * t + i], rd[i] = d[4 * t + i];
  for (int i = 0; i < 2; ++i) rb[i] = b[2 * t + i];
  multiply(rd, ra, rb, T());
  for (int i = 0; i < 4; ++i) d[4 * t + i] = rd[i];
}

template <int kCount, bool kTransposed>
__global__ void ldmatrix_kernel(const uint16_t* in, uint32_t* out) {
  GPU_SHARED_ALIGNED(16, uint16_t, x, [4][8][8]);
  const unsigned t = threadIdx.x;
  for (unsigned i = t; i < 256; i += 32) x[i / 64][i / 8 % 8][i % 8] = in[i];
  __syncwarp();
  const void* row = x[t / 8][t % 8];
  uint32_t r[kCount];
  if constexpr (kCount == 4) {
    kTransposed ? gpu::ldmatrix_x4_trans(r, row) : gpu::ldmatrix_x4(r, row);
  } else {
    kTransposed ? gpu::ldmatrix_x2_trans(r, row) : gpu::ldmatrix_x2(r, row);
  }
  for (int m = 0; m < kCount; ++m) out[kCount * t + m] = r[m];
}

// ---- Arithmetic ---------------------------------------------------------------------------------

__global__ void to_tf32_kernel(const float* in, uint32_t* out, int count) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) out[i] = gpu::to_tf32(in[i]);
}
__global__ void tanh_kernel(const float* in, float* out, int count) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) out[i] = gpu::tanh_approx(in[i]);
}

// ---- Asynchronous copies ------------------------------------------------------------------------

template <int kBytes>
__global__ void cp_async_kernel(const char* in, char* out) {
  GPU_SHARED_ALIGNED(16, char, x, [kBytes + 1][kBytes]);
  const unsigned t = threadIdx.x;
  if constexpr (kBytes == 16) {
    gpu::cp_async16(x[t], in, t);
  } else {
    gpu::cp_async<kBytes>(x[t], in, t);
  }
  gpu::cp_async_commit();
  gpu::cp_async_wait<0>();
  for (int i = 0; i < kBytes; ++i) out[kBytes * t + i] = x[t][i];
}

__global__ void cp_async_groups_kernel(const char* in, char* out) {
  GPU_SHARED_ALIGNED(16, char, x, [3][32][16]);
  const unsigned t = threadIdx.x;
  for (int group = 0; group < 3; ++group) {
    gpu::cp_async16(x[group][t], in + (32 * group + t) * 16);
    gpu::cp_async_commit();
  }
  const auto write = [&](int group) {
    __syncthreads();
    for (int i = 0; i < 16; ++i) out[(32 * group + t) * 16 + i] = x[group][31 - t][i];
  };
  gpu::cp_async_wait<2>();
  write(0);
  gpu::cp_async_wait<1>();
  write(1);
  gpu::cp_async_wait<0>();
  write(2);
}

// ---- Memory -------------------------------------------------------------------------------------

__global__ void sixteen_bytes_kernel(const uint4* in, uint4* between, uint4* out) {
  const unsigned t = threadIdx.x;
  gpu::prefetch_l2(in + t);
  out[t] = gpu::ld_cg16(in + t);
  out[32 + t] = gpu::ld_stream16(in + t);
  gpu::st_cg16(between + t, in[t]);
  __syncthreads();
  out[64 + t] = gpu::ld_cg16(between + (t ^ 1));
}

__global__ void shared_memory_kernel(int* out) {
  GPU_SHARED(char, one, [3]);
  GPU_SHARED_ALIGNED(16, float, wide, [5]);
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  const char* first = carver.take<char>(3);
  const double* second = carver.take<double>(1);
  const float* third = carver.take<float>(4, 128);
  const auto at = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  if (threadIdx.x) return;
  one[0] = 1;
  out[0] = at(first) % 128 == 0 && at(second) % 128 == 8 && at(third) % 128 == 0;
  out[1] = one[0] == 1 && at(wide) % 16 == 0;
}

__global__ void set_to_one(int* out) { *out = 1; }

template <class Launch>
bool refused(const Launch& launch) {
  try {
    return launch() != cudaSuccess;
  } catch (const std::exception&) {  // host execution reports by exceptions
    return true;
  }
}

}  // namespace

bool lanes(uint32_t* out) { return GPU_LAUNCH(shape(1, 32), lanes_kernel, out) == cudaSuccess; }

bool mma(Mma kind, const uint32_t* a, const uint32_t* b, float* d) {
  const auto kernel = kind == Mma::kBFloat16  ? mma_kernel<__nv_bfloat16>
                      : kind == Mma::kFloat16 ? mma_kernel<__half>
                                              : mma_kernel<float>;
  return GPU_LAUNCH(shape(1, 32), kernel, a, b, d) == cudaSuccess;
}

bool ldmatrix(int count, bool transposed, const uint16_t* in, uint32_t* out) {
  const auto kernel = count == 4
                          ? (transposed ? ldmatrix_kernel<4, true> : ldmatrix_kernel<4, false>)
                          : (transposed ? ldmatrix_kernel<2, true> : ldmatrix_kernel<2, false>);
  return GPU_LAUNCH(shape(1, 32), kernel, in, out) == cudaSuccess;
}

bool to_tf32(const float* in, uint32_t* out, int count) {
  return GPU_LAUNCH(shape(1, 128), to_tf32_kernel, in, out, count) == cudaSuccess;
}
bool tanh_approx(const float* in, float* out, int count) {
  return GPU_LAUNCH(shape(1, 128), tanh_kernel, in, out, count) == cudaSuccess;
}

bool cp_async(int bytes, const char* in, char* out) {
  const auto kernel = bytes == 16  ? cp_async_kernel<16>
                      : bytes == 8 ? cp_async_kernel<8>
                                   : cp_async_kernel<4>;
  return GPU_LAUNCH(shape(1, unsigned(bytes) + 1), kernel, in, out) == cudaSuccess;
}
bool cp_async_groups(const char* in, char* out) {
  return GPU_LAUNCH(shape(1, 32), cp_async_groups_kernel, in, out) == cudaSuccess;
}

bool sixteen_bytes(const void* in, void* between, void* out) {
  return GPU_LAUNCH(shape(1, 32), sixteen_bytes_kernel, static_cast<const uint4*>(in),
                    static_cast<uint4*>(between), static_cast<uint4*>(out)) == cudaSuccess;
}

bool shared_memory(int* out, int* most_active) {
  constexpr size_t kShared = 60 << 10;  // beyond what a launch has unasked
  *most_active = gpu::max_active_blocks(shared_memory_kernel, 64, kShared);
  return GPU_LAUNCH(shape(1, 64, kShared), shared_memory_kernel, out) == cudaSuccess;
}
bool too_much_shared_is_refused(int* out) {
  return gpu::max_active_blocks(set_to_one, 32, 1 << 20) == 0 &&
         refused([&] { return GPU_LAUNCH(shape(1, 1, 1 << 20), set_to_one, out); });
}
bool too_many_blocks_are_refused(int* out) {
  gpu::Config config = shape(1 << 20, 32);
  config.cooperative = true;
  return refused([&] { return GPU_LAUNCH(config, set_to_one, out); });
}

}  // namespace seq2seq_ext::kernel_bench::ptx
