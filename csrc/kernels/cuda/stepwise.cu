// SPDX-License-Identifier: MIT
// The recurrence step by step: a large product a direction, then one kernel for the gates of all
// directions. For every size, dtype and device.
#include "cuda/math.cuh"
#include "cuda/recurrence.h"
#include "cuda/stepwise.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

StepwiseKernels kernels_of(DType dtype) {
  return dispatch_dtype(dtype, [](auto tag) { return stepwise_kernels<decltype(tag)>(); });
}

int64_t time_of(const SequenceShape& shape, int d, int64_t k) {
  return shape.reverse[d] ? shape.T - 1 - k : k;
}

// What stays the same from step to step.
ForwardStep first_step(const ForwardChunk& chunk, Queue& queue, void* const* h_sums) {
  const SequenceForwardParams& p = *chunk.params;
  const SequenceShape& s = p.shape;
  ForwardStep step{s.cell, s.directions, s.B, s.H, s.P, s.lengths, p.y_stride_b, {}};
  for (int d = 0; d < s.directions; ++d) {
    ForwardStep::Direction& to = step.direction[d];
    to.weights = p.direction[d].weights;
    to.h_sums = h_sums[d];
    to.h = chunk.direction[d].h;
    to.c = chunk.direction[d].c;
    if (to.weights.w_hr != nullptr) to.unprojected = queue.allocate(s.B * s.H, s.dtype);
  }
  return step;
}

// Moves the step to step k.
void advance(const ForwardChunk& chunk, int64_t k, ForwardStep& step) {
  const SequenceForwardParams& p = *chunk.params;
  const SequenceShape& s = p.shape;
  const DType sums = sum_type(s.dtype);
  const int64_t gate_rows = num_gates(s.cell) * s.H, saved = num_saved(s.cell) * s.H;
  for (int d = 0; d < s.directions; ++d) {
    ForwardStep::Direction& to = step.direction[d];
    to.t = time_of(s, d, k);
    const int64_t row = to.t * s.B, first = s.reverse[d] ? s.T - chunk.end : chunk.begin;
    to.x_sums = at(chunk.direction[d].x_parts, sums, (to.t - first) * s.B * gate_rows);
    to.y = at(p.y, s.dtype, to.t * p.y_stride_t + d * s.P);
    to.saved_gates = at(p.direction[d].saved_gates, s.dtype, row * saved);
    to.saved_cells = at(p.direction[d].saved_cells, sums, row * s.H);
  }
}

BackwardStep first_step(const BackwardChunk& chunk, Queue& queue) {
  const SequenceBackwardParams& p = *chunk.params;
  const SequenceShape& s = p.shape;
  BackwardStep step{s.cell, s.directions, s.T,          s.B,           s.H,
                    s.P,    s.lengths,    p.y_stride_b, p.dy_stride_b, {}};
  for (int d = 0; d < s.directions; ++d) {
    BackwardStep::Direction& to = step.direction[d];
    to.reverse = s.reverse[d];
    to.dh = chunk.direction[d].dh;
    to.dc = chunk.direction[d].dc;
    to.h0 = p.direction[d].h0;
    to.c0 = p.direction[d].c0;
    if (p.direction[d].weights.w_hr != nullptr) {
      to.d_output = queue.allocate(s.B * s.H, sum_type(s.dtype));
    }
  }
  return step;
}

void advance(const BackwardChunk& chunk, int64_t k, BackwardStep& step) {
  const SequenceBackwardParams& p = *chunk.params;
  const SequenceShape& s = p.shape;
  const DType sums = sum_type(s.dtype);
  const int64_t saved = num_saved(s.cell) * s.H;
  for (int d = 0; d < s.directions; ++d) {
    BackwardStep::Direction& to = step.direction[d];
    const auto& from = p.direction[d];
    to.t = time_of(s, d, k);
    to.dy = at(p.dy, s.dtype, to.t * p.dy_stride_t + d * s.P);
    to.d_hidden = at(chunk.direction[d].d_hidden, s.dtype, to.t * s.B * s.P);
    to.d_gates = at(chunk.direction[d].d_gates, s.dtype, to.t * s.B * saved);
    to.saved_gates = at(from.saved_gates, s.dtype, to.t * s.B * saved);
    to.saved_cells = at(from.saved_cells, sums, to.t * s.B * s.H);
    // The first step has none before it, and no row that asks for it.
    const int64_t before = k == 0 ? to.t : time_of(s, d, k - 1);
    to.cells_before = at(from.saved_cells, sums, before * s.B * s.H);
    to.y_before = at(p.y, s.dtype, before * p.y_stride_t + d * s.P);
  }
}

}  // namespace

// Work memory: B * (G*H sums + H with a projection) a direction.
Status stepwise_forward(const ForwardChunk& chunk, const Runtime& runtime) {
  Queue queue(runtime);
  const SequenceShape& s = chunk.params->shape;
  const StepwiseKernels kernels = kernels_of(s.dtype);
  const int64_t gate_rows = num_gates(s.cell) * s.H;
  void* h_sums[kMaxDirections] = {};
  for (int d = 0; d < s.directions; ++d) {
    const int64_t width = gate_rows > s.P ? gate_rows : s.P;
    h_sums[d] = queue.allocate(s.B * width, sum_type(s.dtype));
  }
  ForwardStep step = first_step(chunk, queue, h_sums);
  for (int64_t k = chunk.begin; k < chunk.end; ++k) {
    advance(chunk, k, step);
    for (int d = 0; d < s.directions; ++d) {
      const Matrix h = {step.direction[d].h, s.P, 1},
                   w_hh = {step.direction[d].weights.w_hh, s.P, 1};
      queue.product(s.dtype, s.B, gate_rows, s.P, h, w_hh.transposed(), h_sums[d], gate_rows, false,
                    true);
    }
    kernels.gates(queue, step);
    if (step.direction[0].unprojected == nullptr) continue;
    for (int d = 0; d < s.directions; ++d) {
      const Matrix output = {step.direction[d].unprojected, s.H, 1};
      const Matrix w_hr = {step.direction[d].weights.w_hr, s.H, 1};
      queue.product(s.dtype, s.B, s.P, s.H, output, w_hr.transposed(), h_sums[d], s.P, false, true);
    }
    kernels.hand_out(queue, step);
  }
  return queue.status();
}

// Work memory: B * H sums a direction, with a projection only.
Status stepwise_backward(const BackwardChunk& chunk, const Runtime& runtime) {
  Queue queue(runtime);
  const SequenceShape& s = chunk.params->shape;
  const StepwiseKernels kernels = kernels_of(s.dtype);
  const int64_t gates = num_gates(s.cell), saved = num_saved(s.cell);
  const bool projection = chunk.params->direction[0].weights.w_hr != nullptr;
  BackwardStep step = first_step(chunk, queue);
  for (int64_t k = chunk.end - 1; k >= chunk.begin; --k) {
    advance(chunk, k, step);
    if (projection) {
      kernels.take_in(queue, step);
      for (int d = 0; d < s.directions; ++d) {
        const Matrix d_hidden = {step.direction[d].d_hidden, s.P, 1};
        const Matrix w_hr = {chunk.params->direction[d].weights.w_hr, s.H, 1};
        void* const d_output = const_cast<void*>(step.direction[d].d_output);
        queue.product(s.dtype, s.B, s.H, s.P, d_hidden, w_hr, d_output, s.H, false, true);
      }
    }
    kernels.gates_backward(queue, step);
    for (int d = 0; d < s.directions; ++d) {
      if (k == 0 && chunk.params->direction[d].dh0 == nullptr) continue;  // no one asks for it
      // The hidden side's gate gradients: all slots but the GRU's first. Rows that take no part
      // have none, so they keep their dh.
      const Matrix d_gates = {at(step.direction[d].d_gates, s.dtype, (saved - gates) * s.H),
                              saved * s.H, 1};
      const Matrix w_hh = {chunk.params->direction[d].weights.w_hh, s.P, 1};
      queue.product(s.dtype, s.B, s.P, gates * s.H, d_gates, w_hh, step.direction[d].dh, s.P, true,
                    true);
    }
  }
  return queue.status();
}

}  // namespace seq2seq_ext::kernels::cuda
