// SPDX-License-Identifier: MIT
// Bodies of the kernels in stepwise.h. A thread has kVec neighbouring units of one row: 4, loaded
// together, where alignment allows and the step is large; else 1.
#pragma once

#include "cuda/gates.cuh"
#include "cuda/stepwise.h"

namespace seq2seq_ext::kernels::cuda {

constexpr int kStepThreads = 256;

template <class E, int N>
struct alignas(sizeof(E) * N) Pack {
  E value[N];
};

// Pack number 0 of the array at `data`, `index` elements on.
template <int N, class E>
__device__ Pack<E, N> load(const void* data, int64_t index) {
  return *reinterpret_cast<const Pack<E, N>*>(static_cast<const E*>(data) + index);
}
template <class E, int N>
__device__ void store(void* data, int64_t index, const Pack<E, N>& pack) {
  *reinterpret_cast<Pack<E, N>*>(static_cast<E*>(data) + index) = pack;
}
template <int N, class E>
__device__ Pack<E, N> zeros() {
  Pack<E, N> pack;
#pragma unroll
  for (int v = 0; v < N; ++v) pack.value[v] = E(0.f);
  return pack;
}

// The element of a (B, width) step that a thread starts at; b == B: none.
template <int kVec>
__device__ void locate(int64_t B, int64_t width, int64_t& b, int64_t& column) {
  const int64_t index = int64_t(blockIdx.x) * kStepThreads + threadIdx.x;
  const int64_t per_row = width / kVec;
  b = index / per_row < B ? index / per_row : B;
  column = index % per_row * kVec;
}

// --- forward ---

template <class T, class CellType, int kVec>
__global__ void __launch_bounds__(kStepThreads)
    gates_kernel(const __grid_constant__ ForwardStep step) {
  using Acc = AccOf<T>;
  constexpr int G = CellType::kGates, kSaved = CellType::kSaved;
  const ForwardStep::Direction& d = step.direction[blockIdx.y];
  const int64_t H = step.H;
  int64_t b, unit;
  locate<kVec>(step.B, H, b, unit);
  if (b == step.B) return;
  const int64_t place = b * H + unit, saved_place = b * kSaved * H + unit;

  if (step.lengths != nullptr && d.t >= step.lengths[b]) {
    if (d.unprojected == nullptr) store(d.y, b * step.y_stride_b + unit, zeros<kVec, T>());
    if (d.saved_gates == nullptr) return;
#pragma unroll
    for (int g = 0; g < kSaved; ++g) store(d.saved_gates, saved_place + g * H, zeros<kVec, T>());
    if constexpr (CellType::kHasCell) store(d.saved_cells, place, zeros<kVec, Acc>());
    return;
  }

  Pack<Acc, kVec> x_sums[G], h_sums[G], state = zeros<kVec, Acc>();
  Pack<T, kVec> b_ih[G], b_hh[G], h, saved[kSaved];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    x_sums[g] = load<kVec, Acc>(d.x_sums, (b * G + g) * H + unit);
    h_sums[g] = load<kVec, Acc>(d.h_sums, (b * G + g) * H + unit);
    const bool bias = d.weights.b_ih != nullptr;
    b_ih[g] = bias ? load<kVec, T>(d.weights.b_ih, g * H + unit) : zeros<kVec, T>();
    b_hh[g] = bias ? load<kVec, T>(d.weights.b_hh, g * H + unit) : zeros<kVec, T>();
  }
  h = CellType::kSplitHidden ? load<kVec, T>(d.h, place) : zeros<kVec, T>();
  if constexpr (CellType::kHasCell) state = load<kVec, Acc>(d.c, place);
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    Gates<T, CellType> gates;
    Acc x[G], hidden[G], keep[kSaved];
#pragma unroll
    for (int g = 0; g < G; ++g) {
      gates.b_ih[g] = to_acc(b_ih[g].value[v]);
      gates.b_hh[g] = to_acc(b_hh[g].value[v]);
      x[g] = x_sums[g].value[v];
      hidden[g] = h_sums[g].value[v];
    }
    h.value[v] = from_acc<T>(gates.forward(x, hidden, to_acc(h.value[v]), state.value[v], keep));
#pragma unroll
    for (int g = 0; g < kSaved; ++g) saved[g].value[v] = from_acc<T>(keep[g]);
  }
  if (d.unprojected != nullptr) {
    store(d.unprojected, place, h);
  } else {
    store(d.h, place, h);
    store(d.y, b * step.y_stride_b + unit, h);
  }
  if constexpr (CellType::kHasCell) store(d.c, place, state);
  if (d.saved_gates == nullptr) return;
#pragma unroll
  for (int g = 0; g < kSaved; ++g) store(d.saved_gates, saved_place + g * H, saved[g]);
  if constexpr (CellType::kHasCell) store(d.saved_cells, place, state);
}

template <class T>
__global__ void __launch_bounds__(kStepThreads)
    hand_out_kernel(const __grid_constant__ ForwardStep step) {
  const ForwardStep::Direction& d = step.direction[blockIdx.y];
  int64_t b, column;
  locate<1>(step.B, step.P, b, column);
  if (b == step.B) return;
  T* const y = static_cast<T*>(d.y) + b * step.y_stride_b + column;
  if (step.lengths != nullptr && d.t >= step.lengths[b]) {
    *y = T(0.f);
    return;
  }
  const int64_t place = b * step.P + column;
  *y = from_acc<T>(static_cast<const AccOf<T>*>(d.h_sums)[place]);
  static_cast<T*>(d.h)[place] = *y;
}

// --- backward ---

// Whether row b takes part, and whether this is its first step.
__device__ inline bool active_row(const BackwardStep& step, const BackwardStep::Direction& d,
                                  int64_t b, bool& first) {
  int64_t length = step.lengths == nullptr ? step.T : step.lengths[b];
  if (length > step.T) length = step.T;
  first = d.t == (d.reverse ? length - 1 : 0);
  return d.t < length;
}

template <class T>
__global__ void __launch_bounds__(kStepThreads)
    take_in_kernel(const __grid_constant__ BackwardStep step) {
  const BackwardStep::Direction& d = step.direction[blockIdx.y];
  int64_t b, column;
  locate<1>(step.B, step.P, b, column);
  if (b == step.B) return;
  const int64_t place = b * step.P + column;
  T* const d_hidden = static_cast<T*>(d.d_hidden) + place;
  bool first;
  if (!active_row(step, d, b, first)) {
    *d_hidden = T(0.f);
    return;
  }
  AccOf<T>* const dh = static_cast<AccOf<T>*>(d.dh) + place;
  AccOf<T> sum = *dh;
  if (d.dy != nullptr) sum += to_acc(static_cast<const T*>(d.dy)[b * step.dy_stride_b + column]);
  *d_hidden = from_acc<T>(sum);
  *dh = 0;
}

template <class T, class CellType, int kVec>
__global__ void __launch_bounds__(kStepThreads)
    gates_backward_kernel(const __grid_constant__ BackwardStep step) {
  using Acc = AccOf<T>;
  constexpr int kSlots = CellType::kSaved;
  const BackwardStep::Direction& d = step.direction[blockIdx.y];
  const int64_t H = step.H;
  int64_t b, unit;
  locate<kVec>(step.B, H, b, unit);
  if (b == step.B) return;
  const int64_t place = b * H + unit, saved_place = b * kSlots * H + unit;

  bool first;
  if (!active_row(step, d, b, first)) {  // dh and dc stay
#pragma unroll
    for (int g = 0; g < kSlots; ++g) store(d.d_gates, saved_place + g * H, zeros<kVec, T>());
    return;
  }

  const bool projection = d.d_output != nullptr;
  Pack<Acc, kVec> dh = load<kVec, Acc>(projection ? d.d_output : d.dh, place);
  if (!projection && d.dy != nullptr) {
    const Pack<T, kVec> dy = load<kVec, T>(d.dy, b * step.dy_stride_b + unit);
#pragma unroll
    for (int v = 0; v < kVec; ++v) dh.value[v] += to_acc(dy.value[v]);
  }
  Pack<T, kVec> saved[kSlots], d_gates[kSlots];
#pragma unroll
  for (int g = 0; g < kSlots; ++g) saved[g] = load<kVec, T>(d.saved_gates, saved_place + g * H);
  Pack<Acc, kVec> after = zeros<kVec, Acc>(), before = after, d_state = after;
  if constexpr (CellType::kHasCell) {
    after = load<kVec, Acc>(d.saved_cells, place);
    before = load<kVec, Acc>(first ? d.c0 : d.cells_before, place);
    d_state = load<kVec, Acc>(d.dc, place);
  }
  if constexpr (CellType::kSplitHidden) {
    const Pack<T, kVec> h =
        first ? load<kVec, T>(d.h0, place) : load<kVec, T>(d.y_before, b * step.y_stride_b + unit);
#pragma unroll
    for (int v = 0; v < kVec; ++v) before.value[v] = to_acc(h.value[v]);
  }
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    Acc keep[kSlots], gates[kSlots];
#pragma unroll
    for (int g = 0; g < kSlots; ++g) keep[g] = to_acc(saved[g].value[v]);
    CellType::backward(dh.value[v], keep, after.value[v], before.value[v], d_state.value[v], gates);
#pragma unroll
    for (int g = 0; g < kSlots; ++g) d_gates[g].value[v] = from_acc<T>(gates[g]);
  }
#pragma unroll
  for (int g = 0; g < kSlots; ++g) store(d.d_gates, saved_place + g * H, d_gates[g]);
  if constexpr (CellType::kHasCell) store(d.dc, place, d_state);
  // The product with W_hh is added to it.
  if (!projection) store(d.dh, place, CellType::kSplitHidden ? d_state : zeros<kVec, Acc>());
}

// --- launches ---

// Whether every array of a step can be read four elements at a time, and is worth it: the cell's
// functions are long, so a small step is faster on more threads.
template <class T, class Step>
bool four_units(const Queue& queue, const Step& step, std::initializer_list<const void*> of_type,
                std::initializer_list<const void*> of_sums,
                std::initializer_list<int64_t> strides) {
  if (sizeof(T) > 4 || step.H % 4 != 0) return false;
  if (step.B * step.H * step.directions < 4 * kStepThreads * int64_t{queue.runtime().device.sms}) {
    return false;
  }
  for (const void* p : of_type) {
    if (reinterpret_cast<uintptr_t>(p) % (4 * sizeof(T)) != 0) return false;
  }
  for (const void* p : of_sums) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) return false;
  }
  for (int64_t stride : strides) {
    if (stride % 4 != 0) return false;
  }
  return true;
}

inline dim3 step_grid(int64_t count, int directions) {
  return dim3(blocks_of(count, kStepThreads), static_cast<unsigned>(directions));
}

template <class T>
void launch_gates(Queue& queue, const ForwardStep& step) {
  bool four = true;
  for (int i = 0; i < step.directions; ++i) {
    const ForwardStep::Direction& d = step.direction[i];
    four = four && four_units<T>(queue, step,
                                 {d.h, d.unprojected, d.unprojected != nullptr ? nullptr : d.y,
                                  d.saved_gates, d.weights.b_ih, d.weights.b_hh},
                                 {d.x_sums, d.h_sums, d.c, d.saved_cells}, {step.y_stride_b});
  }
  dispatch_cell<AccOf<T>>(step.cell, [&](auto cell) {
    using CellType = decltype(cell);
    const int64_t count = step.B * step.H;
    if constexpr (sizeof(T) <= 4) {
      if (four) {
        return queue.launch("gates", gates_kernel<T, CellType, 4>,
                            step_grid(count / 4, step.directions), kStepThreads, step);
      }
    }
    queue.launch("gates", gates_kernel<T, CellType, 1>, step_grid(count, step.directions),
                 kStepThreads, step);
  });
}

template <class T>
void launch_gates_backward(Queue& queue, const BackwardStep& step) {
  bool four = true;
  for (int i = 0; i < step.directions; ++i) {
    const BackwardStep::Direction& d = step.direction[i];
    four = four && four_units<T>(queue, step, {d.dy, d.saved_gates, d.y_before, d.h0, d.d_gates},
                                 {d.dh, d.d_output, d.saved_cells, d.cells_before, d.c0, d.dc},
                                 {step.y_stride_b, step.dy_stride_b});
  }
  dispatch_cell<AccOf<T>>(step.cell, [&](auto cell) {
    using CellType = decltype(cell);
    const int64_t count = step.B * step.H;
    if constexpr (sizeof(T) <= 4) {
      if (four) {
        return queue.launch("gates_backward", gates_backward_kernel<T, CellType, 4>,
                            step_grid(count / 4, step.directions), kStepThreads, step);
      }
    }
    queue.launch("gates_backward", gates_backward_kernel<T, CellType, 1>,
                 step_grid(count, step.directions), kStepThreads, step);
  });
}

template <class T>
void launch_hand_out(Queue& queue, const ForwardStep& step) {
  queue.launch("hand_out", hand_out_kernel<T>, step_grid(step.B * step.P, step.directions),
               kStepThreads, step);
}

template <class T>
void launch_take_in(Queue& queue, const BackwardStep& step) {
  queue.launch("take_in", take_in_kernel<T>, step_grid(step.B * step.P, step.directions),
               kStepThreads, step);
}

template <class T>
StepwiseKernels stepwise_kernels() {
  return {launch_gates<T>, launch_hand_out<T>, launch_take_in<T>, launch_gates_backward<T>};
}

}  // namespace seq2seq_ext::kernels::cuda
