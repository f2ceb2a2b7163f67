// SPDX-License-Identifier: MIT
// Atomics: relaxed, as in CUDA. Fibers do not need them to be atomic; ThreadSanitizer and the
// preempting build do. Integers only: a sum of floats by atomics would not repeat.
#pragma once

#include "host_execution/builtins.h"

namespace hx {

template <class T>
struct Same {
  using type = T;
};
template <class T>
using Value = typename Same<T>::type;

template <class T>
HX_INLINE T exchange_if(T* p, T expected, T desired) {
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
// *p = f(*p); returns what was there.
template <class T, class F>
HX_INLINE T update(T* p, F f) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, f(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace hx

template <class T>
HX_INLINE T atomicAdd(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return T(old + v); });
}
template <class T>
HX_INLINE T atomicSub(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return T(old - v); });
}
template <class T>
HX_INLINE T atomicMax(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return old < v ? v : old; });
}
template <class T>
HX_INLINE T atomicMin(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
HX_INLINE T atomicAnd(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return T(old & v); });
}
template <class T>
HX_INLINE T atomicOr(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return T(old | v); });
}
template <class T>
HX_INLINE T atomicXor(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T old) { return T(old ^ v); });
}
template <class T>
HX_INLINE T atomicExch(T* p, hx::Value<T> v) {
  return hx::update(p, [v](T) { return v; });
}
// Adds 1, starts again from 0 after `last`.
HX_INLINE unsigned atomicInc(unsigned* p, unsigned last) {
  return hx::update(p, [last](unsigned old) { return old >= last ? 0 : old + 1; });
}
template <class T>
HX_INLINE T atomicCAS(T* p, hx::Value<T> expected, hx::Value<T> v) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  return hx::exchange_if<T>(p, expected, v);
}
