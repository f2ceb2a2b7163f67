// SPDX-License-Identifier: MIT
// Warp operations: every lane of the mask brings its operands and waits; the last one to come does
// the work for all.
#pragma once

#include <cstring>

#include "host_execution/builtins.h"

namespace hx {

struct WarpOp {
  const char* name;
  // operands[lane] for the lanes of the mask; the others' are null.
  void (*execute)(unsigned mask, void* const* operands);
  bool orders_memory = false;
};
void warp_meet(const WarpOp& op, unsigned mask, void* operand, const Place& at);

// For lane in mask. A macro: a lambda in an unwatched function would be watched.
#define HX_FOR_LANES(lane, mask)        \
  for (int lane = 0; lane < 32; ++lane) \
    if ((mask) >> lane & 1)

// ---- Shuffles -----------------------------------------------------------------------------------

template <class T>
struct Shuffle {
  T in, out;
  int source;
  bool bad;
};
template <class T>
HX_UNWATCHED void execute_shuffle(unsigned mask, void* const* operands) {
  HX_FOR_LANES(lane, mask) {
    auto* own = static_cast<Shuffle<T>*>(operands[lane]);
    own->bad = !(mask >> own->source & 1);
    if (!own->bad) own->out = static_cast<Shuffle<T>*>(operands[own->source])->in;
  }
}
template <class T>
inline const WarpOp shuffle_op{"__shfl_sync", execute_shuffle<T>};

template <class T>
T shuffle(unsigned mask, T value, int source, const Place& at) {
  static_assert(std::is_trivially_copyable_v<T>);
  Shuffle<T> s{value, value, source, false};
  warp_meet(shuffle_op<T>, mask, &s, at);
  if (s.bad) {
    fail("%s:%d: shuffle reads lane %d, which is not in the mask 0x%08x or has exited", name_of(at),
         at.line, source, mask);
  }
  return s.out;
}
inline int check_width(int width, const Place& at) {
  if (width < 1 || width > 32 || (width & (width - 1))) {
    fail("%s:%d: shuffle width %d is not a power of 2 up to 32", name_of(at), at.line, width);
  }
  return width;
}

// ---- Votes, matches -----------------------------------------------------------------------------

struct Vote {
  int predicate;
  unsigned lanes;
};
HX_UNWATCHED inline void execute_vote(unsigned mask, void* const* operands) {
  unsigned lanes = 0;
  HX_FOR_LANES(lane, mask) {
    if (static_cast<Vote*>(operands[lane])->predicate) lanes |= 1u << lane;
  }
  HX_FOR_LANES(lane, mask) static_cast<Vote*>(operands[lane])->lanes = lanes;
}
inline const WarpOp vote_op{"a vote (__ballot_sync, __any_sync, __all_sync)", execute_vote};
inline unsigned ballot(unsigned mask, int predicate, const Place& at) {
  Vote vote{predicate, 0};
  warp_meet(vote_op, mask, &vote, at);
  return vote.lanes;
}

struct Match {
  uint64_t value;
  unsigned same, all;
};
HX_UNWATCHED inline void execute_match(unsigned mask, void* const* operands) {
  HX_FOR_LANES(lane, mask) {
    auto* own = static_cast<Match*>(operands[lane]);
    own->same = 0, own->all = mask;
    HX_FOR_LANES(other, mask) {
      if (static_cast<Match*>(operands[other])->value == own->value) own->same |= 1u << other;
    }
  }
}
inline const WarpOp match_op{"__match_any_sync or __match_all_sync", execute_match};
template <class T>
Match match(unsigned mask, T value, const Place& at) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  Match m{0, 0, 0};
  std::memcpy(&m.value, &value, sizeof value);
  warp_meet(match_op, mask, &m, at);
  return m;
}

// ---- Reductions ---------------------------------------------------------------------------------

template <class T, class F>
HX_UNWATCHED void execute_reduce(unsigned mask, void* const* operands) {
  T total{};
  bool first = true;
  HX_FOR_LANES(lane, mask) {
    const T value = *static_cast<T*>(operands[lane]);
    total = first ? value : F()(total, value);
    first = false;
  }
  HX_FOR_LANES(lane, mask) * static_cast<T*>(operands[lane]) = total;
}
template <class T, class F>
inline const WarpOp reduce_op{F::name, execute_reduce<T, F>};
template <class F, class T>
T reduce(unsigned mask, T value, const Place& at) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  warp_meet(reduce_op<T, F>, mask, &value, at);
  return value;
}

HX_UNWATCHED inline void execute_nothing(unsigned, void* const*) {}
inline const WarpOp syncwarp_op{"__syncwarp", execute_nothing, true};

}  // namespace hx

inline void __syncwarp(unsigned mask = 0xffffffffu, hx::Place at = HX_HERE) {
  if (!hx::skipped("__syncwarp", at)) hx::warp_meet(hx::syncwarp_op, mask, nullptr, at);
}

// Lanes are numbered within segments of `width`; a lane outside gives the caller's own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, hx::Place at = HX_HERE) {
  const int lane = hx::current->lane, within = hx::check_width(width, at) - 1;
  return hx::shuffle(mask, value, (lane & ~within) | (source & within), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, hx::Place at = HX_HERE) {
  const int lane = hx::current->lane, within = hx::check_width(width, at) - 1;
  const bool inside = delta <= unsigned(lane & within);
  return hx::shuffle(mask, value, inside ? lane - int(delta) : lane, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, hx::Place at = HX_HERE) {
  const int lane = hx::current->lane, within = hx::check_width(width, at) - 1;
  const bool inside = delta <= unsigned(within - (lane & within));
  return hx::shuffle(mask, value, inside ? lane + int(delta) : lane, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, hx::Place at = HX_HERE) {
  const int lane = hx::current->lane, within = hx::check_width(width, at) - 1;
  const int source = lane ^ lanes;
  return hx::shuffle(mask, value, source <= (lane | within) && source >= 0 ? source : lane, at);
}

inline unsigned __ballot_sync(unsigned mask, int p, hx::Place at = HX_HERE) {
  return hx::ballot(mask, p, at);
}
inline int __any_sync(unsigned mask, int p, hx::Place at = HX_HERE) {
  return hx::ballot(mask, p, at) != 0;
}
inline int __all_sync(unsigned mask, int p, hx::Place at = HX_HERE) {
  return hx::ballot(mask, !p, at) == 0;
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, hx::Place at = HX_HERE) {
  return hx::match(mask, value, at).same;
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all, hx::Place at = HX_HERE) {
  const hx::Match m = hx::match(mask, value, at);
  *all = m.same == m.all;
  return *all ? m.all : 0;
}

#define HX_REDUCE(function, expression)                        \
  namespace hx {                                               \
  struct Op##function {                                        \
    static constexpr const char* name = #function;             \
    template <class T>                                         \
    T operator()(T a, T b) const {                             \
      return expression;                                       \
    }                                                          \
  };                                                           \
  }                                                            \
  template <class T>                                           \
  T function(unsigned mask, T value, hx::Place at = HX_HERE) { \
    return hx::reduce<hx::Op##function>(mask, value, at);      \
  }
HX_REDUCE(__reduce_add_sync, T(unsigned(a) + unsigned(b)))
HX_REDUCE(__reduce_min_sync, b < a ? b : a)
HX_REDUCE(__reduce_max_sync, a < b ? b : a)
HX_REDUCE(__reduce_and_sync, a& b)
HX_REDUCE(__reduce_or_sync, a | b)
HX_REDUCE(__reduce_xor_sync, a ^ b)
#undef HX_REDUCE
