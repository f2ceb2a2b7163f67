// SPDX-License-Identifier: MIT
// Linear + cross-entropy for one ISA. Included by cross_entropy_<isa>.cpp only.
#pragma once

#include "cpu/cross_entropy_backward.h"
#include "cpu/cross_entropy_forward.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

constexpr int64_t kMinWorkPerThread = 128 << 10;  // multiply-adds, about 5 us

int useful_threads(const Runtime& runtime, int64_t work, int64_t tasks) {
  const int64_t useful = std::min(tasks, work / kMinWorkPerThread);
  return static_cast<int>(std::clamp<int64_t>(useful, 1, runtime.num_threads));
}

bool can_keep(int64_t kept, const CrossEntropyInputs& in) {
  return kept >= 0 && (kept == in.V || (kept < in.V && kept % kKeptWords == 0));
}

template <class S>
Status forward_as(const CrossEntropyForwardParams& p, const Runtime& runtime) {
  CrossEntropyForward<S> forward(p);
  const int threads = useful_threads(runtime, forward.rows() * p.in.V * p.in.H, forward.tasks());
  run_team(runtime, threads, [&](const Member& member) { forward.run(member); });
  return Status::ok();
}

template <class S>
Status backward_as(const CrossEntropyBackwardParams& p, const Runtime& runtime) {
  CrossEntropyBackward<S> backward(p);
  const int threads = useful_threads(runtime, 3 * backward.rows() * p.in.V * p.in.H,
                                     std::numeric_limits<int>::max());
  run_team(runtime, threads, [&](const Member& member) { backward.run(member); });
  return Status::ok();
}

}  // namespace

Status cross_entropy_forward(const CrossEntropyForwardParams& p, const Runtime& runtime) {
  if (!can_keep(p.kept, p.in)) return Status::invalid("cross_entropy_forward: kept");
  switch (p.in.dtype) {
    case DType::kFloat32:
      return forward_as<float>(p, runtime);
    case DType::kFloat64:
      return forward_as<double>(p, runtime);
    case DType::kBFloat16:
      return forward_as<BFloat16>(p, runtime);
    default:
      return Status::invalid("cross_entropy_forward: expected float32, float64 or bfloat16");
  }
}

Status cross_entropy_backward(const CrossEntropyBackwardParams& p, const Runtime& runtime) {
  if (!can_keep(p.kept, p.in)) return Status::invalid("cross_entropy_backward: kept");
  switch (p.in.dtype) {
    case DType::kFloat32:
      return backward_as<float>(p, runtime);
    case DType::kFloat64:
      return backward_as<double>(p, runtime);
    case DType::kBFloat16:
      return backward_as<BFloat16>(p, runtime);
    default:
      return Status::invalid("cross_entropy_backward: expected float32, float64 or bfloat16");
  }
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
