// SPDX-License-Identifier: MIT
#include "cuda/math.cuh"
#include "cuda/reduce.h"
#include "cuda/sequence_gradients.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Entries of (T, B) in order of time: what a cell gave out before its projection, o tanh(c).
template <class T>
__global__ void __launch_bounds__(kThreads)
    unprojected_kernel(const T* gates, const AccOf<T>* cells, int64_t entries, int64_t H, T* to) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= entries * H) return;
  const int64_t entry = index / H, unit = index % H;
  const AccOf<T> o = to_acc(gates[(entry * 4 + 3) * H + unit]);
  to[index] = from_acc<T>(o * Math<AccOf<T>>::tanh(cells[index]));
}

// One direction's products. Slots of d_gates (recurrence.h) are the rows of W_ih and W_hh in order,
// but for cells that split, as the GRU does: slots 1, 2, 0 are the rows of W_ih, slots 1, 2, 3
// those of W_hh.
struct Direction {
  Queue& queue;
  const SequenceShape& s;
  const void* d_gates;
  const int64_t slots = num_saved(s.cell), gates = num_gates(s.cell);

  // (rows, entries): `count` slots' gradients of the entries from time t on, transposed.
  Matrix left(int64_t slot, int64_t t) const {
    return {at(d_gates, s.dtype, t * s.B * slots * s.H + slot * s.H), 1, slots * s.H};
  }

  // A parameter's gradient while it is summed: in place, or in work memory of the sum type.
  struct Sum {
    void* const grad;  // null: not wanted
    const int64_t rows, width;
    void* data = nullptr;
    bool fresh = true;  // nothing added yet
  };
  Sum sum(void* grad, int64_t rows, int64_t width) const {
    const bool in_place = grad == nullptr || sum_type(s.dtype) == s.dtype;
    return {grad, rows, width, in_place ? grad : queue.allocate(rows * width, sum_type(s.dtype))};
  }
  void finish(const Sum& sum) const {
    if (sum.data != sum.grad) narrow(queue, s.dtype, sum.data, sum.rows * sum.width, sum.grad);
  }

  void add_rows(Sum& sum, int64_t first, int64_t rows, int64_t entries, const Matrix& from,
                const Matrix& right) const {
    queue.product(s.dtype, rows, sum.width, entries, from, right,
                  at(sum.data, sum_type(s.dtype), first * sum.width), sum.width, !sum.fresh, true);
  }

  // sum += (gate gradients of `entries` entries from time t on)^T @ right.
  void add_input(Sum& sum, int64_t t, int64_t entries, const Matrix& right) const {
    if (slots == gates) {
      add_rows(sum, 0, gates * s.H, entries, left(0, t), right);
    } else {
      const int64_t others = (gates - 1) * s.H;
      add_rows(sum, 0, others, entries, left(1, t), right);
      add_rows(sum, others, s.H, entries, left(0, t), right);
    }
    sum.fresh = false;
  }
  void add_hidden(Sum& sum, int64_t t, int64_t entries, const Matrix& right) const {
    add_rows(sum, 0, gates * s.H, entries, left(slots - gates, t), right);
    sum.fresh = false;
  }
};

// d_gates of each row's first step. A reverse direction starts at a row's last valid time.
const void* first_gates(const Direction& direction, bool reverse) {
  const SequenceShape& s = direction.s;
  const int64_t width = direction.slots * s.H;
  if (!reverse) return direction.d_gates;
  if (s.lengths == nullptr) return at(direction.d_gates, s.dtype, (s.T - 1) * s.B * width);
  void* const rows = direction.queue.allocate(s.B * width, s.dtype);
  copy_last_rows(direction.queue, s.dtype, {direction.d_gates, s.B * width, width, s.T, s.B, width},
                 s.lengths, rows);
  return rows;
}

// The state before a row's step is its output at the step before, so y, shifted by one time, meets
// d_gates. What a shift makes meet across a row's length adds nothing: d_gates is zero past it, and
// so is y, which is what a reverse direction's first step meets. Left out is each row's first step,
// whose state before is h0.
void recurrent_weights(Queue& queue, const GateGradients& given, int d) {
  const SequenceBackwardParams& p = *given.params;
  const SequenceShape& s = p.shape;
  if (p.direction[d].grads.w_hh == nullptr) return;
  const Direction direction{queue, s, given.d_gates[d]};
  Direction::Sum sum = direction.sum(p.direction[d].grads.w_hh, direction.gates * s.H, s.P);

  // h0 of rows without a step may be anything: masked like a sequence of one time.
  Rows h0(queue, s.dtype, {p.direction[d].h0, s.B * s.P, s.P, 1, s.B, s.P}, s.lengths);
  Direction first = direction;
  first.d_gates = first_gates(direction, s.reverse[d]);
  first.add_hidden(sum, 0, s.B, h0.matrix(0, 1));

  const int64_t y_shift = s.reverse[d] ? 1 : 0, gate_shift = 1 - y_shift;
  Rows y(queue, s.dtype, {at(p.y, s.dtype, d * s.P), p.y_stride_t, p.y_stride_b, s.T, s.B, s.P},
         nullptr);
  for (int64_t t = 0, end; t < s.T - 1; t = end) {
    end = t + y.steps() < s.T - 1 ? t + y.steps() : s.T - 1;
    direction.add_hidden(sum, t + gate_shift, (end - t) * s.B,
                         y.matrix(t + y_shift, end + y_shift));
  }
  direction.finish(sum);
}

void input_weights(Queue& queue, const GateGradients& given) {
  const SequenceBackwardParams& p = *given.params;
  const SequenceShape& s = p.shape;
  Rows x(queue, s.dtype, {p.x, p.x_stride_t, p.x_stride_b, s.T, s.B, s.I}, s.lengths);
  const auto direction = [&](int d) { return Direction{queue, s, given.d_gates[d]}; };
  const auto sum = [&](int d) {
    return direction(d).sum(d < s.directions ? p.direction[d].grads.w_ih : nullptr,
                            num_gates(s.cell) * s.H, s.I);
  };
  Direction::Sum sums[kMaxDirections] = {sum(0), sum(1)};
  if (sums[0].grad == nullptr && sums[1].grad == nullptr) return;
  for (int64_t t = 0, end; t < s.T; t = end) {
    end = t + x.steps() < s.T ? t + x.steps() : s.T;
    const Matrix rows = x.matrix(t, end);
    for (int d = 0; d < s.directions; ++d) {
      if (sums[d].grad != nullptr) direction(d).add_input(sums[d], t, (end - t) * s.B, rows);
    }
  }
  for (int d = 0; d < s.directions; ++d) direction(d).finish(sums[d]);
}

void projection_weights(Queue& queue, const GateGradients& given, int d) {
  const SequenceBackwardParams& p = *given.params;
  const SequenceShape& s = p.shape;
  const auto& from = p.direction[d];
  if (from.grads.w_hr == nullptr) return;
  const Direction direction{queue, s, given.d_gates[d]};
  Direction::Sum sum = direction.sum(from.grads.w_hr, s.P, s.H);
  const int64_t steps = piece_steps(s.T, s.B * s.H * size_of(s.dtype));
  void* const outputs = queue.allocate(steps * s.B * s.H, s.dtype);
  for (int64_t t = 0, end; t < s.T; t = end) {
    end = t + steps < s.T ? t + steps : s.T;
    const int64_t entries = (end - t) * s.B;
    dispatch_dtype(s.dtype, [&](auto tag) {
      using T = decltype(tag);
      queue.launch("unprojected", unprojected_kernel<T>, dim3(blocks_of(entries * s.H, kThreads)),
                   kThreads, static_cast<const T*>(from.saved_gates) + t * s.B * 4 * s.H,
                   static_cast<const AccOf<T>*>(from.saved_cells) + t * s.B * s.H, entries, s.H,
                   static_cast<T*>(outputs));
    });
    const Matrix d_hidden = {at(given.d_hidden[d], s.dtype, t * s.B * s.P), s.P, 1};
    direction.add_rows(sum, 0, s.P, entries, d_hidden.transposed(), {outputs, s.H, 1});
    sum.fresh = false;
  }
  direction.finish(sum);
}

// W_ih (G*H, I) with its rows in the order of d_gates' slots.
const void* weights_by_slot(Queue& queue, const SequenceShape& s, const void* w_ih) {
  if (num_saved(s.cell) == num_gates(s.cell)) return w_ih;
  const int64_t gate = s.H * s.I, others = (num_gates(s.cell) - 1) * gate;
  void* const result = queue.allocate(others + gate, s.dtype);
  copy(queue, s.dtype, at(w_ih, s.dtype, others), gate, result);
  copy(queue, s.dtype, w_ih, others, at(result, s.dtype, gate));
  return result;
}

}  // namespace

void parameter_gradients(Queue& queue, const GateGradients& given) {
  const SequenceShape& s = given.params->shape;
  input_weights(queue, given);
  for (int d = 0; d < s.directions; ++d) {
    const RecurrentWeightGrads& grads = given.params->direction[d].grads;
    recurrent_weights(queue, given, d);
    projection_weights(queue, given, d);
    bias_gradients(queue, s.cell, s.dtype, given.d_gates[d], s.T * s.B, s.H, grads.b_ih,
                   grads.b_hh);
  }
}

void input_gradient(Queue& queue, const GateGradients& given) {
  const SequenceBackwardParams& p = *given.params;
  const SequenceShape& s = p.shape;
  if (p.dx == nullptr) return;
  const int64_t slots = num_saved(s.cell), gate_rows = num_gates(s.cell) * s.H;
  const DType sums = sum_type(s.dtype);
  // The sum over directions is rounded once.
  const bool rounds = s.directions == 2 && sums != s.dtype;
  const int64_t steps = rounds ? piece_steps(s.T, s.B * s.I * size_of(sums)) : s.T;
  void* const wide = rounds ? queue.allocate(steps * s.B * s.I, sums) : nullptr;
  Matrix weights[kMaxDirections];
  for (int d = 0; d < s.directions; ++d) {
    weights[d] = {weights_by_slot(queue, s, p.direction[d].weights.w_ih), s.I, 1};
  }
  for (int64_t t = 0, end; t < s.T; t = end) {
    end = t + steps < s.T ? t + steps : s.T;
    const int64_t entries = (end - t) * s.B;
    void* const dx = at(p.dx, s.dtype, t * s.B * s.I);
    for (int d = 0; d < s.directions; ++d) {
      const Matrix d_gates = {at(given.d_gates[d], s.dtype, t * s.B * slots * s.H), slots * s.H, 1};
      queue.product(s.dtype, entries, s.I, gate_rows, d_gates, weights[d], rounds ? wide : dx, s.I,
                    d > 0, rounds);
    }
    if (rounds) narrow(queue, s.dtype, wide, entries * s.I, dx);
  }
}

}  // namespace seq2seq_ext::kernels::cuda
