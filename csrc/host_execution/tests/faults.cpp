// SPDX-License-Identifier: MIT
// Kernels for the sanitizers: each is right, or wrong in one way that the layer alone does not
// report. tests/host_execution/test_layer.py says who has to notice.
#include "layer_test.h"

namespace hx_test {
namespace {

__global__ void past_static_array(int by, float* out) {
  GPU_SHARED(float, x, [64]);
  GPU_SHARED(float, y, [64]);
  const int t = threadIdx.x;
  x[t] = y[t] = 1;
  float* p = x;  // no array type: it takes a redzone to notice
  out[t] = p[t + by];
}
__global__ void before_static_array(int by, double* out) {
  GPU_SHARED(double, x, [64]);
  const int t = threadIdx.x;
  x[t] = 1;
  double* p = x;
  out[t] = p[t - by];
}
__global__ void into_next_piece(int by, float* out) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  float* x = carver.take<float>(64);
  float* y = carver.take<float>(64);
  const int t = threadIdx.x;
  x[t] = y[t] = 1;
  out[t] = x[t + by];
}
__global__ void past_global(int by, float* out) { out[threadIdx.x + by] = 1; }
__global__ void vector_store(int by, float* out) {
  *reinterpret_cast<float4*>(out + by) = float4{0, 0, 0, 0};
}
__global__ void vector_store_to_shared(int by) {
  GPU_DYN_SHARED(memory);
  gpu::Carver carver(memory);
  carver.take<float>(by);  // what follows is aligned to 4 bytes only
  float* x = carver.take<float>(8);
  *reinterpret_cast<float4*>(x) = float4{0, 0, 0, 0};
}
__global__ void after_its_block(float** kept, float* out) {
  GPU_SHARED(float, x, [4]);
  if (blockIdx.x == 0) {
    x[0] = 1;
    *kept = x;
  } else {
    out[0] = (*kept)[0];
  }
}
__global__ void uses_much_stack(int bytes, char* out) {
  volatile char* memory = static_cast<volatile char*>(__builtin_alloca(bytes));
  for (int i = bytes - 1; i >= 0; i -= 512) memory[i] = 1;
  out[0] = memory[bytes - 1];
}
__global__ void past_the_carver(bool wrong, int* out) {
  GPU_DYN_SHARED(memory);
  out[0] = wrong ? memory[5] : *gpu::Carver(memory).take<char>(8);
}

}  // namespace

LAYER_FAULT(static_overflow) {
  std::vector<float> out(64);
  GPU_LAUNCH(shape(1, 64), past_static_array, wrong ? 1 : 0, out.data());
}
LAYER_FAULT(static_underflow) {
  std::vector<double> out(64);
  GPU_LAUNCH(shape(1, 64), before_static_array, wrong ? 1 : 0, out.data());
}
LAYER_FAULT(dynamic_overflow) {
  std::vector<float> out(64);
  GPU_LAUNCH(shape(1, 64, 512), into_next_piece, wrong ? 1 : 0, out.data());
}
LAYER_FAULT(global_overflow) {
  std::vector<float> out(64);
  GPU_LAUNCH(shape(1, 64), past_global, wrong ? 1 : 0, out.data());
}
LAYER_FAULT(misaligned_vector) {
  alignas(16) static float out[8];
  GPU_LAUNCH(shape(1, 1), vector_store, wrong ? 1 : 0, out);
}
LAYER_FAULT(misaligned_piece) {
  GPU_LAUNCH(shape(1, 1, 128), vector_store_to_shared, wrong ? 1 : 4);
}
LAYER_FAULT(shared_after_its_block) {
  float *kept = nullptr, out = 0;
  with_options([](hx::Options& o) { o.schedule = hx::Schedule::kFifo, o.resident = 1; },
               [&] { GPU_LAUNCH(shape(wrong ? 2 : 1, 1), after_its_block, &kept, &out); });
}
LAYER_FAULT(stack_overflow) {
  char out;
  GPU_LAUNCH(shape(1, 1), uses_much_stack, wrong ? 1 << 20 : 8 << 10, &out);
}
LAYER_FAULT(past_carver) {
  int out;
  GPU_LAUNCH(shape(1, 1, 8), past_the_carver, wrong, &out);
}

// ---- Synchronisation ----------------------------------------------------------------------------

namespace {

__global__ void lost_update(bool wrong, int* out) {
  GPU_SHARED(int, n, [1]);
  if (threadIdx.x == 0) n[0] = 0;
  __syncthreads();
  if (wrong) {
    n[0] += 1;
  } else {
    atomicAdd(&n[0], 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) out[0] = n[0];
}
__global__ void warp_exchange(bool wrong, int* out) {
  GPU_SHARED(int, x, [32]);
  const int t = threadIdx.x;
  x[t] = t;
  if (!wrong) __syncwarp();
  // A shuffle makes the lanes meet, and orders no memory.
  const int source = __shfl_sync(gpu::kAllLanes, 31 - t, t);
  out[t] = x[source];
}
__global__ void copy_overwrites(bool wrong, const float* in, float* out) {
  GPU_SHARED_ALIGNED(16, float, x, [128]);
  const int t = threadIdx.x;
  gpu::cp_async16(&x[4 * t], in + 4 * t);
  gpu::cp_async_commit();
  gpu::cp_async_wait<0>();
  __syncthreads();
  out[t] = x[127 - t];
  if (!wrong) __syncthreads();  // others may still read what is overwritten
  gpu::cp_async16(&x[4 * t], in + 4 * t);
}
__global__ void publish(bool wrong, int* data, unsigned* flag) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    data[0] = 42;
    if (wrong) {
      gpu::st_relaxed(flag, 1);
    } else {
      gpu::st_release(flag, 1);
    }
  } else {
    while (gpu::ld_acquire(flag) == 0) gpu::spin_wait();
    data[1] = data[0];
  }
}
// Ends up right in every order that the layer runs.
__global__ void uses_every_site(const float* in, float* out, unsigned* flags) {
  GPU_SHARED_ALIGNED(16, float, x, [256]);
  const int t = threadIdx.x;
  gpu::cp_async16(&x[4 * t], in + 4 * t);
  gpu::cp_async_commit();
  gpu::cp_async_wait<0>();
  __syncthreads();
  float v = x[(t + 1) % 64 * 4];
  __syncthreads();
  x[t] = v;
  __syncwarp();
  v = x[t ^ 1];
  gpu::named_barrier_sync(1, 64);
  x[t] = v;
  __syncthreads();
  out[t] = x[63 - t];
  __syncthreads();  // superfluous: nothing follows that needs it
  if (t == 0) gpu::red_release(flags, 1);
  if (t == 33) {
    while (gpu::ld_acquire(flags) == 0) gpu::spin_wait();
  }
}

}  // namespace

LAYER_FAULT(lost_update) {
  int out = -1;
  GPU_LAUNCH(shape(1, 64), lost_update, wrong, &out);
  EXPECT(out == 64);
}
LAYER_FAULT(warp_exchange) {
  std::vector<int> out(32);
  GPU_LAUNCH(shape(1, 32), warp_exchange, wrong, out.data());
}
LAYER_FAULT(copy_overwrites) {
  alignas(16) static float in[128];
  std::vector<float> out(32);
  GPU_LAUNCH(shape(1, 32), copy_overwrites, wrong, in, out.data());
}
LAYER_FAULT(publish) {
  int data[2] = {0, 0};
  unsigned flag = 0;
  GPU_LAUNCH(shape(2, 1), publish, wrong, data, &flag);
  EXPECT(data[1] == 42);
}
// For the mutation check itself: every site but the superfluous ones is missed.
LAYER_FAULT(sites) {
  alignas(16) static float in[256];
  for (int i = 0; i < 256; ++i) in[i] = float(i);
  std::vector<float> out(64);
  unsigned flags = 0;
  GPU_LAUNCH(shape(1, 64), uses_every_site, in, out.data(), &flags);
  for (int t = 0; t < 64; ++t) EXPECT(out[t] == float(((63 - t) ^ 1) + 1) * 4 || t == 0 || t == 1);
}

}  // namespace hx_test
