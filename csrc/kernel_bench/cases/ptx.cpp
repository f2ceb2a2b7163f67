// SPDX-License-Identifier: MIT
// Every PTX wrapper and warp operation against plain loops. Under host execution this proves the
// twins, on a GPU the wrappers: once it passes there, what host execution shows holds there.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cases/ptx_checks.h"

namespace seq2seq_ext::kernel_bench {
namespace {

float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
uint32_t as_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// What the tensor core takes an operand's 16 bits, or 32 of which it ignores 13, for.
double element(ptx::Mma kind, uint32_t bits) {
  if (kind == ptx::Mma::kTf32) return as_float(bits & 0xffffe000u);
  if (kind == ptx::Mma::kBFloat16) return as_float(bits << 16);
  const int exponent = int(bits >> 10 & 31), mantissa = int(bits & 1023);
  const double x =
      exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits & 0x8000 ? -x : x;
}

// Random values of 16 or 32 bits, of exponents near 0.
uint32_t random_element(ptx::Mma kind, std::mt19937_64& random) {
  const uint32_t r = uint32_t(random() >> 32);
  const uint32_t exponent = r >> 24 & 3;
  if (kind == ptx::Mma::kTf32) return (r & 0x807fffffu) | (126 + exponent) << 23;
  if (kind == ptx::Mma::kBFloat16) return (r & 0x807fu) | (126 + exponent) << 7;
  return (r & 0x83ffu) | (14 + exponent) << 10;
}

}  // namespace

void Ptx::lanes() {
  Integers<uint32_t> out(5 * 32);
  run("lane_id, lane_mask_*", ptx::lanes(out.data()), [&] {
    const Words got = out.download();
    bool right = true;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t below = (1u << lane) - 1, own = 1u << lane;
      right &= got[lane] == lane && got[32 + lane] == below && got[64 + lane] == (below | own);
      right &= got[96 + lane] == ~(below | own) && got[128 + lane] == ~below;
    }
    return right;
  });
}

void Ptx::mma(ptx::Mma kind, const char* name) {
  const bool wide = kind == ptx::Mma::kTf32;
  const int K = wide ? 8 : 16;
  Words A(16 * K), B(K * 8);
  for (uint32_t& x : A) x = random_element(kind, bench.random);
  for (uint32_t& x : B) x = random_element(kind, bench.random);
  const std::vector<float> D = random_floats(16 * 8, 1);
  // Into registers and out of them, after the tables of the PTX ISA.
  Words a(32 * 4), b(32 * 2);
  std::vector<float> d(32 * 4);
  std::vector<double> expected(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) {
      const int row = r % 2 ? g + 8 : g;
      const int col = wide ? t + (r >= 2 ? 4 : 0) : 2 * t + (r >= 2 ? 8 : 0);
      a[4 * lane + r] = A[row * K + col];
      if (!wide) a[4 * lane + r] |= A[row * K + col + 1] << 16;
    }
    for (int r = 0; r < 2; ++r) {
      const int row = wide ? t + 4 * r : 2 * t + 8 * r;
      b[2 * lane + r] = B[row * 8 + g];
      if (!wide) b[2 * lane + r] |= B[(row + 1) * 8 + g] << 16;
    }
    for (int r = 0; r < 4; ++r) {
      const int row = r < 2 ? g : g + 8, col = 2 * t + r % 2;
      d[4 * lane + r] = D[row * 8 + col];
      double sum = D[row * 8 + col];
      for (int k = 0; k < K; ++k)
        sum += element(kind, A[row * K + k]) * element(kind, B[k * 8 + col]);
      expected[4 * lane + r] = sum;
    }
  }
  Integers<uint32_t> device_a(a), device_b(b);
  Integers<float> device_d(d);
  const bool launched = ptx::mma(kind, device_a.data(), device_b.data(), device_d.data());
  synchronize();
  const std::vector<float> got = device_d.download();
  // The tensor core cuts off where a sum would round.
  bench.check(name, {got.begin(), got.end()}, expected, DType::kFloat32, launched ? 8 : 0);
}

void Ptx::ldmatrix(int count, bool transposed) {
  std::vector<uint16_t> in(256);
  for (uint16_t& x : in) x = uint16_t(bench.random());
  Integers<uint16_t> device_in(in);
  Integers<uint32_t> out(32 * count);
  const std::string name = "ldmatrix_x" + std::to_string(count) + (transposed ? "_trans" : "");
  run(name, ptx::ldmatrix(count, transposed, device_in.data(), out.data()), [&] {
    const Words got = out.download();
    bool right = true;
    for (int lane = 0; lane < 32; ++lane) {
      for (int m = 0; m < count; ++m) {
        for (int half = 0; half < 2; ++half) {
          const int i = lane / 4, j = lane % 4 * 2 + half;
          const uint16_t expected = in[64 * m + (transposed ? 8 * j + i : 8 * i + j)];
          right &= (got[count * lane + m] >> 16 * half & 0xffff) == expected;
        }
      }
    }
    return right;
  });
}

// ---- Arithmetic ---------------------------------------------------------------------------------

void Ptx::arithmetic() {
  std::vector<float> in = random_floats(4000, 3);
  for (const float x : {0.f, -0.f, 1e-30f, 20.f, -100.f, INFINITY, -INFINITY}) in.push_back(x);
  in.push_back(as_float(0x3f801000u));  // a tie
  const int count = int(in.size());
  Integers<float> device_in(in), tanh(count);
  Integers<uint32_t> tf32(count);
  run("to_tf32", ptx::to_tf32(device_in.data(), tf32.data(), count), [&] {
    const Words got = tf32.download();
    bool right = true;
    for (int i = 0; i < count; ++i) {
      // To nearest, ties away from zero: half of the last bit kept, added to the magnitude.
      const uint32_t bits = as_bits(in[i]);
      right &= got[i] == (std::isinf(in[i]) ? bits : (bits + 0x1000u) & ~0x1fffu);
    }
    return right;
  });
  run("tanh_approx", ptx::tanh_approx(device_in.data(), tanh.data(), count), [&] {
    const std::vector<float> got = tanh.download();
    bool right = true;
    for (int i = 0; i < count; ++i) {
      const double expected = std::tanh(double(in[i]));
      right &= std::fabs(got[i] - expected) <= std::ldexp(std::fabs(expected), -10);
    }
    return right;
  });
}

// ---- Copies, memory -----------------------------------------------------------------------------

void Ptx::copies() {
  std::vector<char> in(3 * 32 * 16);
  for (char& x : in) x = char(bench.random() | 1);  // never zero
  Integers<char> device_in(in);
  for (const int bytes : {4, 8, 16}) {
    Integers<char> out((bytes + 1) * bytes);
    const std::string name = "cp_async of " + std::to_string(bytes) + " bytes, zeros";
    run(name, ptx::cp_async(bytes, device_in.data(), out.data()), [&] {
      const std::vector<char> got = out.download();
      bool right = true;
      for (int read = 0; read <= bytes; ++read) {
        for (int i = 0; i < bytes; ++i) right &= got[read * bytes + i] == (i < read ? in[i] : 0);
      }
      return right;
    });
  }
  Integers<char> out(int64_t(in.size()));
  run("cp_async_commit, cp_async_wait", ptx::cp_async_groups(device_in.data(), out.data()), [&] {
    const std::vector<char> got = out.download();
    bool right = true;
    for (int row = 0; row < 3 * 32; ++row) {
      const int from = row / 32 * 32 + 31 - row % 32;
      right &= std::memcmp(&got[16 * row], &in[16 * from], 16) == 0;
    }
    return right;
  });
}

void Ptx::memory() {
  const Words in = random_words(32 * 4);
  Integers<uint32_t> device_in(in), between(32 * 4), out(3 * 32 * 4);
  run("ld_cg16, ld_stream16, st_cg16, prefetch_l2",
      ptx::sixteen_bytes(device_in.data(), between.data(), out.data()), [&] {
        const Words got = out.download();
        bool right = between.download() == in;
        for (size_t i = 0; i < in.size(); ++i) {
          right &= got[i] == in[i] && got[128 + i] == in[i] && got[256 + i] == in[i ^ 4];
        }
        return right;
      });
  Integers<int> aligned(2);
  int most_active = 0;
  run("Carver, GPU_SHARED_ALIGNED, max_active_blocks",
      ptx::shared_memory(aligned.data(), &most_active), [&] {
        const int fit = int((bench.runtime.device.shared_per_block + 1024) / (61 << 10));
        return aligned.download() == std::vector<int>{1, 1} && most_active >= 1 &&
               most_active <= fit;
      });
  Integers<int> untouched(std::vector<int>{0});
  run("too much shared memory is refused", ptx::too_much_shared_is_refused(untouched.data()),
      [&] { return untouched.download()[0] == 0; });
  run("too large a cooperative grid is refused", ptx::too_many_blocks_are_refused(untouched.data()),
      [&] { return untouched.download()[0] == 0; });
}

BENCH_CASE(ptx, "blocks=4 rounds=6") {
  Ptx checks{bench};
  checks.lanes();
  checks.mma(ptx::Mma::kBFloat16, "mma_m16n8k16 bf16");
  checks.mma(ptx::Mma::kFloat16, "mma_m16n8k16 fp16");
  checks.mma(ptx::Mma::kTf32, "mma_m16n8k8_tf32");
  for (const int count : {2, 4}) {
    for (const bool transposed : {false, true}) checks.ldmatrix(count, transposed);
  }
  checks.arithmetic();
  checks.copies();
  checks.memory();
  checks.flags();
  checks.barriers();
  for (const uint32_t mask : {0xffffffffu, 0x0000ffffu, 0x5a5a1248u, 1u << 31}) checks.votes(mask);
  checks.shuffles();
  checks.all_atomics();
  checks.bits();
}

}  // namespace seq2seq_ext::kernel_bench
