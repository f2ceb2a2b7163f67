// SPDX-License-Identifier: MIT
// Host twins of the tensor core wrappers of gpu/ptx.h, which describes the layouts.
#pragma once

#include <cmath>
#include <cstring>

#include "host_execution/intrinsics.h"
#include "host_execution/warp.h"

namespace hx {

inline void need_all_lanes(const char* what, unsigned mask) {
  if (mask != 0xffffffffu) fail("%s needs all 32 lanes, has those of 0x%08x", what, mask);
}

struct MmaOperand {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
// The 16-bit values in a register, the lower index in the lower half.
template <class T>
HX_UNWATCHED void unpack(uint32_t bits, float* values) {
  T pair[2];
  std::memcpy(static_cast<void*>(pair), &bits, 4);
  values[0] = float(pair[0]);
  values[1] = float(pair[1]);
}
// D += A B of size 16 x K x 8; products are exact in double, their sum nearly so.
template <int K>
HX_UNWATCHED void multiply(const float (&A)[16][K], const float (&B)[8][K], void* const* operands) {
  for (int lane = 0; lane < 32; ++lane) {
    float* d = static_cast<MmaOperand*>(operands[lane])->d;
    for (int r = 0; r < 4; ++r) {
      const float *a = A[lane / 4 + 8 * (r / 2)], *b = B[2 * (lane % 4) + r % 2];
      double sum = 0;
      for (int k = 0; k < K; ++k) sum += double(a[k]) * b[k];
      d[r] = float(sum + double(d[r]));
    }
  }
}
template <class T>
HX_UNWATCHED void execute_mma_16(unsigned mask, void* const* operands) {
  need_all_lanes("mma.sync", mask);
  float A[16][16], B[8][16];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<MmaOperand*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) unpack<T>(own->a[r], &A[g + 8 * (r % 2)][2 * t + 8 * (r / 2)]);
    for (int r = 0; r < 2; ++r) unpack<T>(own->b[r], &B[g][2 * t + 8 * r]);
  }
  multiply(A, B, operands);
}
template <class T>
inline const WarpOp mma_16_op{"mma.sync.m16n8k16", execute_mma_16<T>};

// The hardware ignores the 13 low bits.
HX_UNWATCHED inline float tf32(uint32_t x) { return bits<float>(x & 0xffffe000u); }
HX_UNWATCHED inline void execute_mma_tf32(unsigned mask, void* const* operands) {
  need_all_lanes("mma.sync", mask);
  float A[16][8], B[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<MmaOperand*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) A[g + 8 * (r % 2)][t + 4 * (r / 2)] = tf32(own->a[r]);
    for (int r = 0; r < 2; ++r) B[g][t + 4 * r] = tf32(own->b[r]);
  }
  multiply(A, B, operands);
}
inline const WarpOp mma_tf32_op{"mma.sync.m16n8k8 (tf32)", execute_mma_tf32};

template <int N>
struct Rows {
  uint16_t row[8];  // read by the lane that gives its address, so that sanitizers blame that one
  uint32_t* r;
};
// Element j of row i of matrix m. (A function: a lambda would be watched.)
template <int N>
HX_UNWATCHED uint32_t element(void* const* operands, int m, int i, int j) {
  return static_cast<const Rows<N>*>(operands[8 * m + i])->row[j];
}
template <int N, bool kTransposed>
HX_UNWATCHED void execute_ldmatrix(unsigned mask, void* const* operands) {
  need_all_lanes("ldmatrix", mask);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int m = 0; m < N; ++m) {
      static_cast<Rows<N>*>(operands[lane])->r[m] =
          kTransposed
              ? element<N>(operands, m, 2 * t, g) | element<N>(operands, m, 2 * t + 1, g) << 16
              : element<N>(operands, m, g, 2 * t) | element<N>(operands, m, g, 2 * t + 1) << 16;
    }
  }
}
template <int N, bool kTransposed>
inline const WarpOp ldmatrix_op{"ldmatrix", execute_ldmatrix<N, kTransposed>};

template <bool kTransposed, int N>
void ldmatrix(uint32_t (&r)[N], const void* row, const Place& at) {
  Rows<N> own{{}, r};
  if (current->lane < 8 * N) {
    if (reinterpret_cast<uintptr_t>(row) % 16) {
      fail("%s:%d: ldmatrix: a row's address is not a multiple of 16", name_of(at), at.line);
    }
    if (!in_shared(row, 16)) {
      fail("%s:%d: ldmatrix: a row is not in this block's shared memory", name_of(at), at.line);
    }
    std::memcpy(own.row, row, 16);
  }
  warp_meet(ldmatrix_op<N, kTransposed>, 0xffffffffu, &own, at);
}

}  // namespace hx

namespace gpu {

template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T,
                  hx::Place at = HX_HERE) {
  hx::MmaOperand own{d, a, b};
  hx::warp_meet(hx::mma_16_op<T>, 0xffffffffu, &own, at);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             hx::Place at = HX_HERE) {
  hx::MmaOperand own{d, a, b};
  hx::warp_meet(hx::mma_tf32_op, 0xffffffffu, &own, at);
}
inline uint32_t to_tf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (std::isnan(x)) return 0x7fffe000u;
  return std::isinf(x) ? bits : (bits + 0x1000u) & 0xffffe000u;
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, hx::Place at = HX_HERE) {
  hx::ldmatrix<false>(r, row, at);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, hx::Place at = HX_HERE) {
  hx::ldmatrix<true>(r, row, at);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, hx::Place at = HX_HERE) {
  hx::ldmatrix<false>(r, row, at);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, hx::Place at = HX_HERE) {
  hx::ldmatrix<true>(r, row, at);
}

}  // namespace gpu
