// ptx_host.h - host twins of the wrappers in gpu/ptx.h.
#pragma once
#include <host_execution/host_execution.h>
namespace hx {
template <class T> HX_QUIET void unpack2(uint32_t r, float* out) {   // low half = lower index
  T v[2];
  __builtin_memcpy(static_cast<void*>(v), &r, 4);
  out[0] = float(v[0]);
  out[1] = float(v[1]);
}
struct Mma { float* d; const uint32_t* a; const uint32_t* b; };
// Fragment layouts of mma.m16n8k16 (PTX ISA): g = lane/4, t = lane%4.
//   A reg r: row g + 8*(r&1), cols 2t + 8*(r>>1) + {0,1};  B reg r: k = 2t + 8r + {0,1}, col g;
//   C/D reg r: row g + 8*(r>>1), col 2t + (r&1).
template <class T> HX_QUIET void exec_mma16816(unsigned mask, void** p) {
  if (mask != 0xffffffffu) fail("mma.sync needs all 32 lanes, has mask 0x%08x", mask);
  float A[16][16], B[8][16];
  for (int l = 0; l < 32; ++l) {
    auto* m = static_cast<Mma*>(p[l]);
    int g = l >> 2, t = l & 3;
    for (int r = 0; r < 4; ++r) unpack2<T>(m->a[r], &A[g + 8 * (r & 1)][2 * t + 8 * (r >> 1)]);
    for (int r = 0; r < 2; ++r) unpack2<T>(m->b[r], &B[g][2 * t + 8 * r]);
  }
  for (int l = 0; l < 32; ++l) {
    auto* m = static_cast<Mma*>(p[l]);
    int g = l >> 2, t = l & 3;
    for (int r = 0; r < 4; ++r) {
      const float *a = A[g + 8 * (r >> 1)], *b = B[2 * t + (r & 1)];
      double s = 0;                               // products of 16-bit values are exact in double
      for (int k = 0; k < 16; ++k) s += double(a[k]) * b[k];
      m->d[r] = float(s + double(m->d[r]));
    }
  }
}
template <class T> struct MmaOp { static inline const Op op{"mma.sync.m16n8k16", exec_mma16816<T>}; };
HX_QUIET inline void exec_mma1688_tf32(unsigned mask, void** p) {
  if (mask != 0xffffffffu) fail("mma.sync needs all 32 lanes, has mask 0x%08x", mask);
  float A[16][8], B[8][8];
  auto tf32 = [](uint32_t x) { x &= 0xffffe000u; float f; __builtin_memcpy(&f, &x, 4); return f; };  // 10-bit mantissa
  for (int l = 0; l < 32; ++l) {
    auto* m = static_cast<Mma*>(p[l]);
    int g = l >> 2, t = l & 3;
    for (int r = 0; r < 4; ++r) A[g + 8 * (r & 1)][t + 4 * (r >> 1)] = tf32(m->a[r]);
    for (int r = 0; r < 2; ++r) B[g][t + 4 * r] = tf32(m->b[r]);
  }
  for (int l = 0; l < 32; ++l) {
    auto* m = static_cast<Mma*>(p[l]);
    int g = l >> 2, t = l & 3;
    for (int r = 0; r < 4; ++r) {
      double s = 0;
      for (int k = 0; k < 8; ++k) s += double(A[g + 8 * (r >> 1)][k]) * B[2 * t + (r & 1)][k];
      m->d[r] = float(s + double(m->d[r]));
    }
  }
}
inline const Op op_mma_tf32{"mma.sync.m16n8k8.tf32", exec_mma1688_tf32};
// ldmatrix: lane l supplies (and itself reads, so that ASan/TSan blame the right thread) row l%8 of matrix l/8.
struct Ldm { uint16_t row[8]; uint32_t* r; };
template <bool Trans> HX_QUIET void exec_ldmatrix(unsigned mask, void** p) {
  if (mask != 0xffffffffu) fail("ldmatrix needs all 32 lanes, has mask 0x%08x", mask);
  for (int l = 0; l < 32; ++l)
    for (int m = 0; m < 4; ++m) {
      int g = l >> 2, t = l & 3;
      auto row = [&](int i) { return static_cast<Ldm*>(p[m * 8 + i])->row; };
      uint32_t lo = Trans ? row(2 * t)[g] : row(g)[2 * t], hi = Trans ? row(2 * t + 1)[g] : row(g)[2 * t + 1];
      static_cast<Ldm*>(p[l])->r[m] = lo | hi << 16;
    }
}
template <bool Trans> struct LdmOp { static inline const Op op{"ldmatrix.x4", exec_ldmatrix<Trans>}; };
template <bool Trans> void ldmatrix(uint32_t (&r)[4], const void* row, const char* f, int l) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("%s:%d: ldmatrix row address is not 16-byte aligned", f, l);
  if (!in_shared(row, 16)) fail("%s:%d: ldmatrix row is not in this block's shared memory", f, l);
  Ldm q;
  std::memcpy(q.row, row, 16);
  q.r = r;
  warp_collective(&LdmOp<Trans>::op, 0xffffffffu, &q, f, l);
}
}  // namespace hx
namespace gpu {
template <class T> void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T, HX_WHERE) {
  hx::Mma m{d, a, b};
  hx::warp_collective(&hx::MmaOp<T>::op, 0xffffffffu, &m, HX_AT);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], HX_WHERE) {
  hx::Mma m{d, a, b};
  hx::warp_collective(&hx::op_mma_tf32, 0xffffffffu, &m, HX_AT);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, HX_WHERE) { hx::ldmatrix<false>(r, row, HX_AT); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, HX_WHERE) { hx::ldmatrix<true>(r, row, HX_AT); }

inline void cp_async16(void* smem, const void* gmem, unsigned src_bytes = 16, HX_WHERE) {
  if (reinterpret_cast<uintptr_t>(smem) % 16 || reinterpret_cast<uintptr_t>(gmem) % 16) hx::fail("%s:%d: cp.async address is not 16-byte aligned", HX_AT);
  if (!hx::in_shared(smem, 16)) hx::fail("%s:%d: cp.async destination is not in this block's shared memory", HX_AT);
  hx::async_issue(smem, gmem, 16, src_bytes, HX_AT);
}
template <int N> void cp_async(void* smem, const void* gmem, unsigned src_bytes = N, HX_WHERE) {
  if (reinterpret_cast<uintptr_t>(smem) % N || reinterpret_cast<uintptr_t>(gmem) % N) hx::fail("%s:%d: cp.async address is not %d-byte aligned", HX_AT, N);
  if (!hx::in_shared(smem, N)) hx::fail("%s:%d: cp.async destination is not in this block's shared memory", HX_AT);
  hx::async_issue(smem, gmem, N, src_bytes, HX_AT);
}
inline void cp_async_commit() { hx::async_commit(); }
template <int N> void cp_async_wait(HX_WHERE) { if (!hx::skipped(HX_AT)) hx::async_wait(N); }

inline unsigned ld_acquire(const unsigned* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
inline void red_release(unsigned* p, unsigned v) { __atomic_fetch_add(p, v, __ATOMIC_RELEASE); }
// The hardware result has a relative error of up to 2^-11: round to 11 bits so that tolerances know it.
inline float tanh_approx(float x) {
  uint32_t u = __float_as_uint(std::tanh(x));
  return __uint_as_float((u + 0x1000u) & 0xffffe000u);
}

// mbarrier: the 8 bytes hold {phase, pending arrivals, arrival count, pending transaction bytes}.
struct MbarState { uint32_t phase : 1, count : 15, pending : 16; int32_t tx; };
inline void mbar_check(const void* b) { if (!hx::in_shared(b, 8) || reinterpret_cast<uintptr_t>(b) % 8) hx::fail("mbarrier is not 8-byte aligned in shared memory"); }
inline void mbar_settle(MbarState& s) { if (s.pending == 0 && s.tx == 0) { s.phase ^= 1; s.pending = s.count; } }
inline void mbar_store(uint64_t* b, const MbarState& s) { uint64_t u; std::memcpy(&u, &s, 8); __atomic_store_n(b, u, __ATOMIC_RELEASE); }
inline MbarState mbar_load(const uint64_t* b) { uint64_t u = __atomic_load_n(b, __ATOMIC_ACQUIRE); MbarState s; std::memcpy(&s, &u, 8); return s; }
inline void mbar_init(uint64_t* b, unsigned count) { mbar_check(b); MbarState s{}; s.count = s.pending = count; mbar_store(b, s); }
inline void mbar_update(uint64_t* b, int arrivals, int tx) {
  mbar_check(b);
  MbarState s = mbar_load(b);
  if (int(s.pending) < arrivals) hx::fail("mbarrier: more arrivals than its count of %u", unsigned(s.count));
  s.pending -= unsigned(arrivals);
  s.tx += tx;
  mbar_settle(s);
  mbar_store(b, s);
}
inline void mbar_arrive(uint64_t* b) { mbar_update(b, 1, 0); }
inline void mbar_arrive_expect_tx(uint64_t* b, unsigned bytes) { mbar_update(b, 1, int(bytes)); }
inline void mbar_wait(uint64_t* b, unsigned parity, HX_WHERE) {
  mbar_check(b);
  if (hx::skipped(HX_AT)) return;
  while (mbar_load(b).phase == (parity & 1)) hx::spin_yield(HX_AT);
}
void bulk_copy_g2s(void* smem, const void* gmem, unsigned bytes, uint64_t* b, HX_WHERE);
inline void fence_mbar_init() {}
}  // namespace gpu
