// SPDX-License-Identifier: MIT
// Which implementation runs the recurrence, and how the persistent kernels cut it.
//
// Persistent, if all of these hold; `Plan::reason` names the first that does not:
//  - bfloat16 or float16, arch >= 80: the weights are fragments of mma.m16n8k16. (float32 in
//    tensor cores would round to tf32; float64 is for tests.)
//  - the cell has persistent kernels (persistent.cu).
//  - no projection: the exchanged value is what the gates make.
//  - T >= 4: loading the weights costs as much as a few steps of a GEMM.
//  - B H^2 <= 3e8 on 132 multiprocessors, in proportion on others: beyond, a step is long enough
//    for a plain product to use the whole device, and reading h costs more than the weights saved.
//  - H <= kWholeUnits, where a block has all units of its rows and no block waits for another; or
//    blocks for all units of all directions fit on the device at once, one on a multiprocessor,
//    with at most kMaxBatchTile rows each, and what does not fit in registers fits in shared
//    memory. There is no limit on multiprocessors besides: a slice of a GPU runs what fits on it.
//  - the device itself, if it is the current one, says that all blocks of that very kernel fit at
//    once; of another one, a block on each multiprocessor is what __launch_bounds__ promises.
//
// The cut: as many groups of rows as there is room for, since a step's time is mostly that of
// reading h (batch_tile * K values per block) and groups do not wait for each other.
#include "cuda/plan.h"

#include <algorithm>

namespace seq2seq_ext::kernels::cuda {
namespace {

using namespace persistent;

constexpr int kMaxBatchTile = 128;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of a launch's input projections (float32), of one direction, that its length allows.
constexpr int64_t kChunkBytes = 64 << 20;
constexpr int64_t kMaxChunk = 4096;  // steps: a launch stays short enough to be preempted

int64_t chunk_steps(const SequenceShape& shape) {
  const int64_t step_bytes = 4 * shape.B * num_gates(shape.cell) * shape.H;
  return std::clamp<int64_t>(kChunkBytes / step_bytes, 16, kMaxChunk);
}

constexpr const char* kNotResident = "the device does not hold all blocks at once";

Plan stepwise(const char* reason) {
  Plan plan;
  plan.reason = reason;
  return plan;
}

// `values`: exchanged values of one unit; `sums`: those that partial sums are made of.
Plan cut(const Tile& tile, int values, int sums, const SequenceShape& shape, const Device& device) {
  const int64_t unit_blocks = divide_up(shape.H, tile.units);
  const int64_t room = device.sms / (unit_blocks * shape.directions);
  if (room < 1) return stepwise("H needs more blocks than the device has multiprocessors");
  const int64_t eights = divide_up(shape.B, 8);
  const int64_t batch_tile = 8 * divide_up(eights, std::min(room, eights));
  if (batch_tile > kMaxBatchTile) return stepwise("B is too large for the blocks that fit");

  Plan plan;
  plan.unit_blocks = int(unit_blocks);
  plan.unit_tile = tile.units;
  plan.batch_tile = int(batch_tile);
  plan.batch_blocks = int(divide_up(shape.B, batch_tile));
  plan.resident = tile.resident;
  plan.shared_bytes =
      shared_bytes(tile, sums, k_blocks(values, shape.H), plan.resident, plan.batch_tile);
  if (plan.shared_bytes > device.shared_per_block) {
    return stepwise("W_hh does not fit in registers and shared memory");
  }
  plan.persistent = true;
  plan.chunk_steps = chunk_steps(shape);
  return plan;
}

// Blocks with all units of their rows; as few rows each as there are multiprocessors for, but two:
// each warp has a lane for a unit of each of them.
Plan whole(int sums, int values, const SequenceShape& shape, const Device& device) {
  Plan plan;
  plan.batch_tile = 2;
  while (plan.batch_tile < kWholeRows &&
         shape.directions * divide_up(shape.B, plan.batch_tile) > device.sms) {
    plan.batch_tile *= 2;
  }
  plan.batch_blocks = int(divide_up(shape.B, plan.batch_tile));
  plan.unit_blocks = 1;
  plan.unit_tile = kWholeUnits;
  plan.resident = k_blocks(values, shape.H);
  plan.shared_bytes = whole_shared_bytes(sums, values);
  if (plan.shared_bytes > device.shared_per_block) return stepwise("too little shared memory");
  plan.persistent = true;
  plan.chunk_steps = chunk_steps(shape);
  return plan;
}

// What differs between cuts in the cycles of a step, from published figures, not measured
// here: 34.6 bytes a cycle from L2 and 128 from shared memory to a multiprocessor, and 0.63
// m16n8k16 products.
double step_cycles(const Plan& plan, const Tile& tile, int values, int sums, int64_t H) {
  const int blocks = k_blocks(values, H);
  const double exchanged = double(plan.batch_tile) * blocks * 64;
  const double products = double(tile.tiles) * (plan.batch_tile / 8) * blocks * 2;
  const double partials = 2.0 * kWarps * plan.unit_tile * plan.batch_tile * (sums == 1 ? 4 : 16);
  const int spilled = std::max(0, k_blocks_of_warp(blocks) - plan.resident);
  const double passes = double(divide_up(plan.batch_tile, kPassRows));
  const double spill = double(kWarps) * spilled * 2 * tile.tiles * 512 * passes;
  return exchanged / 34.6 + products / 0.63 + (partials + spill) / 128;
}

// Null if a persistent kernel could run the shape on this kind of device.
const char* obstacle(const SequenceShape& shape, const Device& device) {
  if (shape.dtype != DType::kBFloat16 && shape.dtype != DType::kFloat16) {
    return "dtype is not bfloat16 or float16";
  }
  if (!has_kernels(shape)) return "the cell has no persistent kernels";
  if (device.arch < 80) return "arch is below 8.0";
  if (shape.P != shape.H) return "projection";
  if (shape.T < 4) return "T is below 4";
  if (shape.T > INT32_MAX || shape.B < 1 || shape.H < 1) return "shape";
  if (double(shape.B) * double(shape.H) * double(shape.H) > 3e8 * device.sms / 132) {
    return "B * H^2 is large";
  }
  return nullptr;
}

}  // namespace

Plan persistent::shared_forward_plan(const SequenceShape& shape, const Device& device) {
  const int gates = int(num_gates(shape.cell));
  return cut(forward_tile(gates), 1, gates, shape, device);
}

Plan persistent::shared_backward_plan(const SequenceShape& shape, const Device& device) {
  const int gates = int(num_gates(shape.cell));
  const Tile narrow = backward_tile(false), wide = backward_tile(true);
  const Plan first = cut(narrow, gates, 1, shape, device);
  const Plan second = cut(wide, gates, 1, shape, device);
  if (!first.persistent || !second.persistent) return second.persistent ? second : first;
  return step_cycles(second, wide, gates, 1, shape.H) <
                 step_cycles(first, narrow, gates, 1, shape.H)
             ? second
             : first;
}

Plan plan_forward(const SequenceShape& shape, const Device& device) {
  if (const char* reason = obstacle(shape, device)) return stepwise(reason);
  const int gates = int(num_gates(shape.cell));
  const Plan plan =
      shape.H <= kWholeUnits ? whole(gates, 1, shape, device) : shared_forward_plan(shape, device);
  if (plan.persistent && !forward_fits(shape, plan, device)) return stepwise(kNotResident);
  return plan;
}

Plan plan_backward(const SequenceShape& shape, const Device& device) {
  if (const char* reason = obstacle(shape, device)) return stepwise(reason);
  const int gates = int(num_gates(shape.cell));
  const Plan plan =
      shape.H <= kWholeUnits ? whole(1, gates, shape, device) : shared_backward_plan(shape, device);
  if (plan.persistent && !backward_fits(shape, plan, device)) return stepwise(kNotResident);
  return plan;
}

}  // namespace seq2seq_ext::kernels::cuda
