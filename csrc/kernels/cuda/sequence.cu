// SPDX-License-Identifier: MIT
// Forward of one recurrent layer over a whole sequence: the input projections of a chunk of steps
// as one product a direction, then the chunk's recurrence, all directions together.
#include "cuda/recurrence.h"
#include "cuda/sequence_memory.h"
#include "cuda/sequence_rows.h"
#include "cuda/sequence_states.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

// Input projections kept at a time, of all directions: they stay in the L2 cache. (A persistent
// launch loads all recurrent weights, so its plan asks for more steps.)
constexpr int64_t kProjectionBytes = 24 << 20;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Steps a chunk: chunks of (nearly) one length.
int64_t steps_per_chunk(const SequenceShape& s, const Plan& plan) {
  const int64_t step_bytes =
      s.directions * s.B * num_gates(s.cell) * s.H * size_of(sum_type(s.dtype));
  int64_t most = plan.persistent ? plan.chunk_steps : kProjectionBytes / step_bytes;
  if (most < 1) most = 1;
  return divide_up(s.T, divide_up(s.T, most));
}

}  // namespace

// Work memory: kProjectionBytes, or the projections of plan.chunk_steps steps; kPieceBytes where x
// is not evenly spaced; and the recurrence's.
Status sequence_forward(const SequenceForwardParams& params, const Runtime& runtime) {
  const SequenceShape& s = params.shape;
  if (s.B == 0) return Status::ok();
  Queue queue(runtime);
  const DType sums = sum_type(s.dtype);
  const int64_t gate_rows = num_gates(s.cell) * s.H;

  initial_states(queue, params);
  ForwardChunk chunk{};
  chunk.params = &params;
  for (int d = 0; d < s.directions; ++d) {
    chunk.direction[d].h = params.direction[d].h_n;
    chunk.direction[d].c = params.direction[d].c_n;
  }
  if (s.T == 0) return queue.status();

  const Plan plan = plan_forward(s, runtime.device);
  const int64_t steps = steps_per_chunk(s, plan);
  void* x_parts[kMaxDirections] = {};
  for (int d = 0; d < s.directions; ++d) {
    x_parts[d] = queue.allocate(steps * s.B * gate_rows, sums);
    chunk.direction[d].x_parts = x_parts[d];
  }
  // What lies past a row's length is projected, too; the recurrence does not look at it.
  Rows x(queue, s.dtype, {params.x, params.x_stride_t, params.x_stride_b, s.T, s.B, s.I}, nullptr);

  RecycledMemory memory(runtime);
  for (chunk.begin = 0; chunk.begin < s.T && queue; chunk.begin = chunk.end) {
    chunk.end = chunk.begin + steps < s.T ? chunk.begin + steps : s.T;
    for (int d = 0; d < s.directions; ++d) {
      const int64_t first = s.reverse[d] ? s.T - chunk.end : chunk.begin;
      const int64_t last = first + chunk.end - chunk.begin;
      const Matrix w_ih = {params.direction[d].weights.w_ih, s.I, 1};
      for (int64_t t = first, end; t < last; t = end) {
        end = t + x.steps() < last ? t + x.steps() : last;
        queue.product(s.dtype, (end - t) * s.B, gate_rows, s.I, x.matrix(t, end), w_ih.transposed(),
                      at(x_parts[d], sums, (t - first) * s.B * gate_rows), gate_rows, false, true);
      }
    }
    queue.run([&] {
      return plan.persistent ? persistent_forward(chunk, plan, memory.runtime())
                             : stepwise_forward(chunk, memory.runtime());
    });
  }
  return queue.status();
}

}  // namespace seq2seq_ext::kernels::cuda
