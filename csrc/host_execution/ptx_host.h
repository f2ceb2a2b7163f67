// SPDX-License-Identifier: MIT
// Host twins of the wrappers in gpu/ptx.h: same names, same arguments (and the caller's line).
//
// Those that order memory are synchronisation sites: left out (Options::skip), they still move the
// data but order nothing, which ThreadSanitizer then reports.
#pragma once

#include "host_execution/ptx_matrix.h"

namespace hx {

// Starts a copy into shared memory; `source_bytes` of it come from `from`, the rest are zeros.
void copy_async(void* to, const void* from, unsigned bytes, unsigned source_bytes, const Place& at);
void copy_commit();
void copy_wait(unsigned groups_left);
void copy_bulk(void* to, const void* from, unsigned bytes, uint64_t* barrier, const Place& at);

inline void check_aligned(const char* what, const void* p, unsigned bytes, const Place& at) {
  if (reinterpret_cast<uintptr_t>(p) % bytes) {
    fail("%s:%d: %s: address is not a multiple of %u", name_of(at), at.line, what, bytes);
  }
}

// An mbarrier's 8 bytes.
struct MbarState {
  uint32_t phase : 1, count : 15, pending : 16;
  int32_t bytes;  // announced and not there yet
};
constexpr uint64_t kUninitialised = ~uint64_t(0);  // what shared memory starts as
inline void check_mbar(const uint64_t* b, const Place& at) {
  check_aligned("mbarrier", b, 8, at);
  if (!in_shared(b, 8)) fail("%s:%d: mbarrier is not in shared memory", name_of(at), at.line);
}
// Releases and does not acquire, as arriving does.
HX_INLINE void mbar_update(uint64_t* b, unsigned arrivals, int bytes, const Place& at) {
  uint64_t old = __atomic_load_n(b, __ATOMIC_RELAXED), desired;
  do {
    auto s = bits<MbarState>(old);
    if (old == kUninitialised) fail("%s:%d: mbarrier is not initialised", name_of(at), at.line);
    if (s.pending < arrivals) {
      fail("%s:%d: mbarrier: more arrivals than its count of %u", name_of(at), at.line,
           unsigned(s.count));
    }
    s.pending -= arrivals;
    s.bytes += bytes;
    if (s.pending == 0 && s.bytes == 0) {
      s.phase ^= 1;
      s.pending = s.count;
    }
    desired = bits<uint64_t>(s);
  } while (
      !__atomic_compare_exchange_n(b, &old, desired, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}
HX_INLINE bool mbar_over(const uint64_t* b, unsigned parity, const Place& at) {
  const uint64_t state = __atomic_load_n(b, __ATOMIC_ACQUIRE);
  if (state == kUninitialised) fail("%s:%d: mbarrier is not initialised", name_of(at), at.line);
  return bits<MbarState>(state).phase != (parity & 1);
}

}  // namespace hx

namespace gpu {

inline unsigned lane_id() { return hx::current->lane; }
inline unsigned lane_mask_lt() { return (1u << lane_id()) - 1; }
inline unsigned lane_mask_le() { return lane_mask_lt() | 1u << lane_id(); }
inline unsigned lane_mask_gt() { return ~lane_mask_le(); }
inline unsigned lane_mask_ge() { return ~lane_mask_lt(); }

// ---- Asynchronous copies ------------------------------------------------------------------------

inline void cp_async16(void* smem, const void* gmem, unsigned src_bytes = 16,
                       hx::Place at = HX_HERE) {
  hx::copy_async(smem, gmem, 16, src_bytes, at);
}
template <int N>
void cp_async(void* smem, const void* gmem, unsigned src_bytes = N, hx::Place at = HX_HERE) {
  static_assert(N == 4 || N == 8);
  hx::copy_async(smem, gmem, N, src_bytes, at);
}
inline void cp_async_commit() { hx::copy_commit(); }
template <int N>
void cp_async_wait(hx::Place at = HX_HERE) {
  if (!hx::skipped("cp_async_wait", at)) hx::copy_wait(N);
}

// ---- Flags --------------------------------------------------------------------------------------

HX_INLINE unsigned ld_acquire(const unsigned* p, hx::Place at = HX_HERE) {
  if (hx::skipped("ld_acquire", at)) return __atomic_load_n(p, __ATOMIC_RELAXED);
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
HX_INLINE void st_release(unsigned* p, unsigned v, hx::Place at = HX_HERE) {
  if (hx::skipped("st_release", at)) return __atomic_store_n(p, v, __ATOMIC_RELAXED);
  __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
HX_INLINE void red_release(unsigned* p, unsigned v, hx::Place at = HX_HERE) {
  if (hx::skipped("red_release", at)) {
    __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  } else {
    __atomic_fetch_add(p, v, __ATOMIC_RELEASE);
  }
}
HX_INLINE unsigned atomic_add_acq_rel(unsigned* p, unsigned v, hx::Place at = HX_HERE) {
  if (hx::skipped("atomic_add_acq_rel", at)) return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
}
HX_INLINE unsigned ld_relaxed(const unsigned* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
HX_INLINE void st_relaxed(unsigned* p, unsigned v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }

// ---- Loads and stores ---------------------------------------------------------------------------

HX_INLINE uint4 ld_cg16(const void* p, hx::Place at = HX_HERE) {
  hx::check_aligned("ld_cg16", p, 16, at);
  return *static_cast<const uint4*>(p);
}
HX_INLINE void st_cg16(void* p, uint4 v, hx::Place at = HX_HERE) {
  hx::check_aligned("st_cg16", p, 16, at);
  *static_cast<uint4*>(p) = v;
}
HX_INLINE uint4 ld_stream16(const void* p, hx::Place at = HX_HERE) {
  hx::check_aligned("ld_stream16", p, 16, at);
  return *static_cast<const uint4*>(p);
}
inline void prefetch_l2(const void*) {}

// ---- Arithmetic ---------------------------------------------------------------------------------

// Rounded to what the hardware promises, so that tolerances know of it.
inline float tanh_approx(float x) {
  const float y = std::tanh(x);
  return std::isnan(y) ? y : __uint_as_float((__float_as_uint(y) + 0x1000u) & 0xffffe000u);
}

// ---- Named barriers -----------------------------------------------------------------------------

// Left out, it arrives without waiting: without arriving, all would stop at once.
inline void named_barrier_sync(int id, int threads, hx::Place at = HX_HERE) {
  const bool skip = hx::skipped("named_barrier_sync", at);
  hx::named_barrier(id, threads, skip ? hx::Arrival::kUnordered : hx::Arrival::kWait, at);
}
inline void named_barrier_arrive(int id, int threads, hx::Place at = HX_HERE) {
  const bool skip = hx::skipped("named_barrier_arrive", at);
  hx::named_barrier(id, threads, skip ? hx::Arrival::kUnordered : hx::Arrival::kRelease, at);
}

// ---- Barriers in shared memory, bulk copies -----------------------------------------------------

HX_INLINE void mbar_init(uint64_t* b, unsigned count, hx::Place at = HX_HERE) {
  hx::check_mbar(b, at);
  if (count == 0 || count >= 1u << 15) {
    hx::fail("%s:%d: mbarrier for %u arrivals", hx::name_of(at), at.line, count);
  }
  hx::MbarState s{};
  s.count = s.pending = count;
  *b = hx::bits<uint64_t>(s);  // a plain store: others may use it after a barrier only
}
inline void fence_mbar_init() {}
HX_INLINE void mbar_arrive(uint64_t* b, hx::Place at = HX_HERE) {
  hx::check_mbar(b, at);
  hx::mbar_update(b, 1, 0, at);
}
HX_INLINE void mbar_arrive_expect_tx(uint64_t* b, unsigned bytes, hx::Place at = HX_HERE) {
  hx::check_mbar(b, at);
  hx::mbar_update(b, 1, int(bytes), at);
}
HX_INLINE bool mbar_try_wait(uint64_t* b, unsigned parity, hx::Place at = HX_HERE) {
  hx::check_mbar(b, at);
  if (hx::mbar_over(b, parity, at)) return true;
  hx::spin(at);
  return hx::mbar_over(b, parity, at);
}
HX_INLINE void mbar_wait(uint64_t* b, unsigned parity, hx::Place at = HX_HERE) {
  if (hx::skipped("mbar_wait", at)) return;
  while (!mbar_try_wait(b, parity, at)) {
  }
}
inline void bulk_copy_g2s(void* smem, const void* gmem, unsigned bytes, uint64_t* b,
                          hx::Place at = HX_HERE) {
  hx::check_mbar(b, at);
  hx::copy_bulk(smem, gmem, bytes, b, at);
}
inline void fence_proxy_async() {}

}  // namespace gpu
