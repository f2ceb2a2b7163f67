// SPDX-License-Identifier: MIT
// Work memory, arguments and launches of the persistent kernels.
#include "cuda/persistent_launch.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

using namespace persistent;

struct Initial {
  const uint16_t* h[kMaxDirections];  // (B, H) of a 16-bit type; null: zero
};

// Exchange buffers: the first holds h, all else, padding included, is zero. Counters: zero.
__global__ void __launch_bounds__(256)
    persistent_start(Group group, Initial initial, int64_t vectors, int64_t flags) {
  const int64_t at = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (at < flags) group.flags[at] = 0;
  if (at >= vectors) return;
  const int row = int(at % group.batch_tile);
  int64_t rest = at / group.batch_tile;
  const int eight = int(rest % (group.k_blocks * 4));
  rest /= group.k_blocks * 4;
  const int buffer = int(rest % 2), index = int(rest / 2);
  const uint16_t* h = initial.h[index / group.batch_blocks];
  const int64_t b = int64_t(index % group.batch_blocks) * group.batch_tile + row;
  uint32_t words[4] = {};
  if (buffer == 0 && h != nullptr && b < group.B) {
    for (int i = 0; i < 8; ++i) {
      const int64_t unit = int64_t(eight) * 8 + i;
      if (unit < group.H) words[i / 2] |= uint32_t(h[b * group.H + unit]) << (i % 2 * 16);
    }
  }
  group.exchange[at] = make_uint4(words[0], words[1], words[2], words[3]);
}

// Fills in what does not depend on the direction, and queues the work that precedes the kernel.
Status start(const SequenceShape& shape, int64_t begin, int64_t end, int values,
             const Initial& initial, const Plan& plan, const Runtime& runtime, Group& group) {
  group.T = int(shape.T);
  group.B = int(shape.B);
  group.H = int(shape.H);
  group.begin = int(begin);
  group.end = int(end);
  group.lengths = shape.lengths;
  group.unit_blocks = plan.unit_blocks;
  group.batch_blocks = plan.batch_blocks;
  group.batch_tile = plan.batch_tile;
  group.k_blocks = k_blocks(values, shape.H);
  group.warp_k_blocks = k_blocks_of_warp(group.k_blocks);
  group.resident = plan.resident;
  group.spilled = group.warp_k_blocks > plan.resident ? group.warp_k_blocks - plan.resident : 0;
  group.flag_stride = (plan.unit_blocks + 31) / 32 * 32;  // groups do not share cache lines

  if (plan.unit_tile == kWholeUnits) return Status::ok();

  const int64_t groups = int64_t(shape.directions) * plan.batch_blocks;
  const int64_t vectors = groups * 2 * group.k_blocks * 4 * plan.batch_tile;
  const int64_t flags = groups * group.flag_stride;
  void* memory = runtime.allocate(vectors * 16 + flags * 4, runtime.context);
  if (memory == nullptr) return Status::invalid("out of device memory");
  group.exchange = static_cast<uint4*>(memory);
  group.flags = reinterpret_cast<unsigned*>(group.exchange + vectors);

  gpu::Config config;
  config.grid = dim3(unsigned(((vectors > flags ? vectors : flags) + 255) / 256));
  config.block = dim3(256);
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  const cudaError_t error = GPU_LAUNCH(config, persistent_start, group, initial, vectors, flags);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure("persistent_start", error));
}

Kernel<ForwardArgs> forward_kernel(const SequenceShape& shape, const Plan& plan) {
  const bool bfloat16 = shape.dtype == DType::kBFloat16;
  switch (shape.cell) {
    case Cell::kLstm:
      return forward_lstm(bfloat16, plan.unit_tile);
    case Cell::kGru:
      return forward_gru(bfloat16, plan.unit_tile);
    case Cell::kRnnTanh:
      return forward_rnn_tanh(bfloat16, plan.unit_tile);
    case Cell::kRnnRelu:
      return forward_rnn_relu(bfloat16, plan.unit_tile);
    default:
      return nullptr;
  }
}

Kernel<BackwardArgs> backward_kernel(const SequenceShape& shape, const Plan& plan) {
  const bool bfloat16 = shape.dtype == DType::kBFloat16;
  switch (shape.cell) {
    case Cell::kLstm:
      return backward_lstm(bfloat16, plan.unit_tile);
    case Cell::kGru:
      return backward_gru(bfloat16, plan.unit_tile);
    case Cell::kRnnTanh:
      return backward_rnn_tanh(bfloat16, plan.unit_tile);
    case Cell::kRnnRelu:
      return backward_rnn_relu(bfloat16, plan.unit_tile);
    default:
      return nullptr;
  }
}

unsigned all_blocks(const SequenceShape& shape, const Plan& plan) {
  return unsigned(shape.directions) * plan.batch_blocks * plan.unit_blocks;
}

template <class Args>
Status launch(const char* name, Kernel<Args> kernel, const Args& args, const SequenceShape& shape,
              const Plan& plan, const Runtime& runtime) {
  gpu::Config config;
  config.grid = dim3(all_blocks(shape, plan));
  config.block = dim3(kThreads);
  config.smem = size_t(plan.shared_bytes);
  config.stream = static_cast<cudaStream_t>(runtime.stream);
  // Blocks that wait for each other: refused, rather than deadlocked, if they do not fit at once.
  config.cooperative = plan.unit_blocks > 1;
  const cudaError_t error = gpu::launch(config, name, kernel, args);
  if (error == cudaSuccess) return Status::ok();
  return Status::invalid(gpu::launch_failure(name, error));
}

template <class Args>
bool all_resident(Kernel<Args> kernel, const SequenceShape& shape, const Plan& plan,
                  const Device& device) {
  // Of a GPU that is elsewhere only __launch_bounds__ is known: one block at least.
  const int64_t blocks = gpu::at_hand(device.arch, device.sms)
                             ? gpu::max_active_blocks(kernel, kThreads, size_t(plan.shared_bytes))
                             : 1;
  return blocks * device.sms >= (plan.unit_blocks > 1 ? all_blocks(shape, plan) : 1u);
}

}  // namespace

bool persistent::has_kernels(const SequenceShape& shape) {
  return forward_kernel(shape, {}) != nullptr && backward_kernel(shape, {}) != nullptr;
}

bool persistent::forward_fits(const SequenceShape& shape, const Plan& plan, const Device& device) {
  return all_resident(forward_kernel(shape, plan), shape, plan, device);
}
bool persistent::backward_fits(const SequenceShape& shape, const Plan& plan, const Device& device) {
  return all_resident(backward_kernel(shape, plan), shape, plan, device);
}

Status persistent_forward(const ForwardChunk& chunk, const Plan& plan, const Runtime& runtime) {
  const SequenceForwardParams& p = *chunk.params;
  const SequenceShape& shape = p.shape;
  if (!plan.persistent) return Status::invalid("persistent_forward: the plan is another's");
  ForwardArgs args{};
  Initial initial{};
  for (int d = 0; d < shape.directions; ++d) {
    const auto& from = chunk.direction[d];
    args.reverse[d] = shape.reverse[d];
    args.direction[d] = {
        p.direction[d].weights,    from.x_parts, from.h, from.c, p.direction[d].saved_gates,
        p.direction[d].saved_cells};
    initial.h[d] = static_cast<const uint16_t*>(from.h);
  }
  args.y = p.y;
  args.y_stride_t = p.y_stride_t;
  args.y_stride_b = p.y_stride_b;
  const Status started =
      start(shape, chunk.begin, chunk.end, 1, initial, plan, runtime, args.group);
  if (!started) return started;
  return launch("persistent_forward", forward_kernel(shape, plan), args, shape, plan, runtime);
}

Status persistent_backward(const BackwardChunk& chunk, const Plan& plan, const Runtime& runtime) {
  const SequenceBackwardParams& p = *chunk.params;
  const SequenceShape& shape = p.shape;
  if (!plan.persistent) return Status::invalid("persistent_backward: the plan is another's");
  BackwardArgs args{};
  for (int d = 0; d < shape.directions; ++d) {
    const auto& from = chunk.direction[d];
    const auto& given = p.direction[d];
    args.reverse[d] = shape.reverse[d];
    args.direction[d] = {given.weights.w_hh, given.h0,     given.c0, given.saved_gates,
                         given.saved_cells,  from.d_gates, from.dh,  from.dc};
  }
  args.y = p.y;
  args.y_stride_t = p.y_stride_t;
  args.y_stride_b = p.y_stride_b;
  args.dy = p.dy;
  args.dy_stride_t = p.dy_stride_t;
  args.dy_stride_b = p.dy_stride_b;
  const Status started = start(shape, chunk.begin, chunk.end, int(num_gates(shape.cell)), Initial{},
                               plan, runtime, args.group);
  if (!started) return started;
  return launch("persistent_backward", backward_kernel(shape, plan), args, shape, plan, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
