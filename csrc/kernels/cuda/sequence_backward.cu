// SPDX-License-Identifier: MIT
// Backward of one recurrent layer over a whole sequence: the recurrence from the last step to the
// first, all directions together, which leaves the gates' gradients; then everything else.
#include "cuda/recurrence.h"
#include "cuda/sequence_gradients.h"
#include "cuda/sequence_memory.h"
#include "cuda/sequence_states.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

void clear_gradients(Queue& queue, const SequenceBackwardParams& params) {
  const SequenceShape& s = params.shape;
  const int64_t gate_rows = num_gates(s.cell) * s.H;
  for (int d = 0; d < s.directions; ++d) {
    const RecurrentWeightGrads& grads = params.direction[d].grads;
    const auto clear = [&](void* grad, int64_t count) {
      if (grad != nullptr) copy(queue, s.dtype, nullptr, count, grad);
    };
    clear(grads.w_ih, gate_rows * s.I);
    clear(grads.w_hh, gate_rows * s.P);
    clear(grads.b_ih, gate_rows);
    clear(grads.b_hh, gate_rows);
    clear(grads.w_hr, s.P * s.H);
  }
}

// Gradients of the final states into those of the recurrence.
BackwardChunk last_chunk(Queue& queue, const SequenceBackwardParams& params) {
  const SequenceShape& s = params.shape;
  const DType sums = sum_type(s.dtype);
  BackwardChunk chunk{};
  chunk.params = &params;
  for (int d = 0; d < s.directions; ++d) {
    const auto& from = params.direction[d];
    auto& to = chunk.direction[d];
    to.d_gates = queue.allocate(s.T * s.B * num_saved(s.cell) * s.H, s.dtype);
    to.dh = queue.allocate(s.B * s.P, sums);
    if (from.weights.w_hr != nullptr) to.d_hidden = queue.allocate(s.T * s.B * s.P, s.dtype);
    if (s.cell != Cell::kLstm) continue;
    to.dc = from.dc0 != nullptr ? from.dc0 : queue.allocate(s.B * s.H, sums);
  }
  final_gradients(queue, chunk);
  return chunk;
}

}  // namespace

// Work memory, a direction: T*B*num_saved*H and, with a projection, T*B*P elements of `dtype`;
// B*(P + H) sums; then what parameter_gradients() and input_gradient() take.
Status sequence_backward(const SequenceBackwardParams& params, const Runtime& runtime) {
  const SequenceShape& s = params.shape;
  Queue queue(runtime);
  if (s.B == 0) {
    clear_gradients(queue, params);
    return queue.status();
  }
  BackwardChunk chunk = last_chunk(queue, params);
  const Plan plan = plan_backward(s, runtime.device);
  const int64_t steps = plan.persistent && plan.chunk_steps > 0 ? plan.chunk_steps : s.T;
  RecycledMemory memory(runtime);
  for (chunk.end = s.T; chunk.end > 0 && queue; chunk.end = chunk.begin) {
    chunk.begin = chunk.end > steps ? chunk.end - steps : 0;
    queue.run([&] {
      return plan.persistent ? persistent_backward(chunk, plan, memory.runtime())
                             : stepwise_backward(chunk, memory.runtime());
    });
  }
  initial_gradients(queue, chunk);
  GateGradients given{&params, {}, {}};
  for (int d = 0; d < s.directions; ++d) {
    given.d_gates[d] = chunk.direction[d].d_gates;
    given.d_hidden[d] = chunk.direction[d].d_hidden;
  }
  if (s.T == 0) {
    clear_gradients(queue, params);
    return queue.status();
  }
  parameter_gradients(queue, given);
  input_gradient(queue, given);
  return queue.status();
}

}  // namespace seq2seq_ext::kernels::cuda
