// SPDX-License-Identifier: MIT
// The layouts of ldmatrix and mma, against plain loops.
#include <cmath>
#include <random>

#include "layer_test.h"

namespace hx_test {
namespace {

using bf16 = __nv_bfloat16;

__global__ void load_matrices(const uint16_t* in, int count, bool transposed, uint32_t* out) {
  GPU_SHARED_ALIGNED(16, uint16_t, x, [4][8][8]);
  const int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) (&x[0][0][0])[i] = in[i];
  __syncwarp();
  // x2: the addresses of lanes 16 to 31 are not used.
  const void* row = count == 4 || lane < 16 ? x[lane / 8][lane % 8] : nullptr;
  uint32_t r[4] = {}, pair[2] = {};
  if (count == 4) {
    transposed ? gpu::ldmatrix_x4_trans(r, row) : gpu::ldmatrix_x4(r, row);
  } else {
    transposed ? gpu::ldmatrix_x2_trans(pair, row) : gpu::ldmatrix_x2(pair, row);
    r[0] = pair[0], r[1] = pair[1];
  }
  for (int m = 0; m < count; ++m) out[4 * lane + m] = r[m];
}

}  // namespace

LAYER_TEST(ldmatrix_layout) {
  std::vector<uint16_t> in(256);
  for (int i = 0; i < 256; ++i) in[i] = uint16_t(i * 257);
  for (const int count : {2, 4}) {
    for (const bool transposed : {false, true}) {
      std::vector<uint32_t> out(128);
      GPU_LAUNCH(shape(1, 32), load_matrices, in.data(), count, transposed, out.data());
      bool right = true;
      for (int lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < count; ++m) {
          for (int half = 0; half < 2; ++half) {
            const int a = lane / 4, b = 2 * (lane % 4) + half;
            const int row = transposed ? b : a, col = transposed ? a : b;
            right &= (out[4 * lane + m] >> 16 * half & 0xffff) == in[64 * m + 8 * row + col];
          }
        }
      }
      EXPECT(right);
    }
  }
}

namespace {

// D += A B by the whole warp; registers are filled element by element, after the ISA's tables.
template <class T>
__global__ void multiply_16(const T* A, const T* B, float* D) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  T a[8], b[4];
  for (int i = 0; i < 8; ++i) {
    const int row = i < 2 || (i >= 4 && i < 6) ? g : g + 8;
    const int col = 2 * t + i % 2 + (i >= 4 ? 8 : 0);
    a[i] = A[16 * row + col];
  }
  for (int i = 0; i < 4; ++i) b[i] = B[8 * (2 * t + i % 2 + (i >= 2 ? 8 : 0)) + g];
  uint32_t ra[4], rb[2];
  std::memcpy(ra, static_cast<void*>(a), sizeof ra);
  std::memcpy(rb, static_cast<void*>(b), sizeof rb);
  float d[4];
  for (int i = 0; i < 4; ++i) d[i] = D[8 * (i < 2 ? g : g + 8) + 2 * t + i % 2];
  gpu::mma_m16n8k16(d, ra, rb, T());
  for (int i = 0; i < 4; ++i) D[8 * (i < 2 ? g : g + 8) + 2 * t + i % 2] = d[i];
}

__global__ void multiply_tf32(const float* A, const float* B, float* D) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) {
    a[i] = gpu::to_tf32(A[8 * (i == 0 || i == 2 ? g : g + 8) + (i < 2 ? t : t + 4)]);
  }
  for (int i = 0; i < 2; ++i) b[i] = gpu::to_tf32(B[8 * (i == 0 ? t : t + 4) + g]);
  float d[4];
  for (int i = 0; i < 4; ++i) d[i] = D[8 * (i < 2 ? g : g + 8) + 2 * t + i % 2];
  gpu::mma_m16n8k8_tf32(d, a, b);
  for (int i = 0; i < 4; ++i) D[8 * (i < 2 ? g : g + 8) + 2 * t + i % 2] = d[i];
}

std::mt19937 generator(7);

template <class T>
std::vector<T> random_values(int count) {
  std::normal_distribution<float> normal;
  std::vector<T> values(count);
  for (T& v : values) v = T(normal(generator));
  return values;
}

template <class T, class Kernel>
double error_of_product(Kernel kernel, int K, double (*rounded)(T)) {
  const std::vector<T> A = random_values<T>(16 * K), B = random_values<T>(K * 8);
  std::vector<float> D = random_values<float>(128);
  std::vector<double> expected(D.begin(), D.end());
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < K; ++k)
        expected[8 * m + n] += rounded(A[K * m + k]) * rounded(B[8 * k + n]);
    }
  }
  GPU_LAUNCH(shape(1, 32), kernel, A.data(), B.data(), D.data());
  double worst = 0;
  for (int i = 0; i < 128; ++i) {
    const double error = std::fabs(D[i] - expected[i]);
    worst = error <= worst ? worst : error;  // NaN stays
  }
  return worst;
}

template <class T>
double as_is(T x) {
  return double(float(x));
}

}  // namespace

LAYER_TEST(mma_layouts) {
  EXPECT(error_of_product<bf16>(multiply_16<bf16>, 16, as_is<bf16>) < 1e-5);
  EXPECT(error_of_product<__half>(multiply_16<__half>, 16, as_is<__half>) < 1e-5);
  const auto to_tf32 = [](float x) { return double(__uint_as_float(gpu::to_tf32(x))); };
  EXPECT(error_of_product<float>(multiply_tf32, 8, +to_tf32) < 1e-5);
}

}  // namespace hx_test
