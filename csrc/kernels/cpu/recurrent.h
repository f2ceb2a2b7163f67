// SPDX-License-Identifier: MIT
// The recurrent kernels' entry points for one ISA: run-time dtype and cell to template arguments,
// the number of threads, and the order of phases. Included by recurrent_<isa>.cpp only.
#pragma once

#include <memory>

#include "cpu/decode/parts.h"
#include "cpu/packed_weights.h"
// These come before what is compiled for the ISA (target.h).
#include "cpu/panel_step.h"
#include "cpu/sequence_backward.h"
#include "cpu/sequence_forward.h"
#include "cpu/step.h"
#include "cpu/weight_gradients.h"

namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA {
namespace {

// A further thread must have at least this many multiply-adds a step to pay for its barrier:
// weights that come from the second-level cache at 32 bytes a cycle take about 0.2 us for them.
constexpr int64_t kMinWorkPerThread = 6 << 10;

int plan_threads(const Runtime& runtime, int64_t work_per_step, int64_t slices) {
  const int64_t useful = std::min(work_per_step / kMinWorkPerThread, slices);
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(runtime.num_threads, useful)));
}

// Runs body(d, member of direction d's team), with `team` threads a direction where there are as
// many: two directions run as two teams side by side.
template <class Body>
void run_directions(const Runtime& runtime, int directions, int team, const Body& body) {
  Barrier own[kMaxDirections];
  run_team(runtime, std::min(runtime.num_threads, directions * team), [&](const Member& member) {
    if (directions == 1) {
      body(0, member);
    } else if (member.size == 1) {
      for (int d = 0; d < directions; ++d) body(d, Member{0, 1, &own[d]});
    } else {
      const int d = member.index % directions;
      const Member mine{member.index / directions, (member.size - d + directions - 1) / directions,
                        &own[d]};
      if (mine.index == 0) own[d].reset(mine.size);
      member.barrier->wait();
      body(d, mine);
    }
  });
}

// What follows the backward recurrence, for all cells alike.
template <class T>
Status parameter_and_input_gradients(
    const SequenceBackwardParams& params, const Runtime& runtime, const BackwardState<T>& pass,
    const std::unique_ptr<typename BackwardState<T>::Direction>* work) {
  using Gradients = WeightGradients<T>;
  const SequenceShape& shape = params.shape;
  const int64_t N = pass.schedule.N;
  const Gradients gradients(pass);
  const bool blas = Gradients::use_blas(runtime) && N > 0;
  const int threads = plan_threads(runtime, N * gradients.gate_rows * shape.P, runtime.num_threads);
  const typename Gradients::Direction* const directions[] = {work[0].get(), work[1].get()};
  std::unique_ptr<ScratchArray<T>> packed[kMaxDirections];
  const T* packed_data[kMaxDirections] = {};
  std::unique_ptr<typename Gradients::Buffers> buffers[kMaxDirections];
  std::unique_ptr<ScratchArray<T>> x[kMaxDirections], h[kMaxDirections];
  for (int d = 0; d < shape.directions; ++d) {
    buffers[d] = std::make_unique<typename Gradients::Buffers>(gradients, threads);
    if (blas) {
      x[d] = std::make_unique<ScratchArray<T>>(N * shape.I);
      h[d] = std::make_unique<ScratchArray<T>>(N * shape.P);
    }
    if (params.dx == nullptr) continue;
    packed[d] = std::make_unique<ScratchArray<T>>(
        gradients.input_panels * panel_size<T, Gradients::NV>(gradients.gate_rows));
    packed_data[d] = packed[d]->data();
  }
  run_team(runtime, threads, [&](const Member& member) {
    for (int d = 0; d < shape.directions; ++d) {
      if (params.dx != nullptr) gradients.pack_input_weights(d, member, packed[d]->data());
      RecurrentWeightGrads grads = params.direction[d].grads;
      if (blas) {
        gradients.gather(d, member, x[d]->data(), h[d]->data());
        grads.w_ih = grads.w_hh = nullptr;
      }
      gradients.run(d, *directions[d], grads, *buffers[d], member);
    }
    member.barrier->wait();
    if (params.dx != nullptr) gradients.input_gradient(directions, packed_data, member);
  });
  for (int d = 0; blas && d < shape.directions; ++d) {
    if (gradients.blas_products(d, *directions[d], x[d]->data(), h[d]->data(), runtime)) continue;
    run_team(runtime, threads, [&](const Member& member) {
      gradients.run(d, *directions[d], params.direction[d].grads, *buffers[d], member);
    });
  }
  return Status::ok();
}

template <class T, class Cell>
struct Launch {
  static Status forward(const SequenceForwardParams& params, const Runtime& runtime) {
    using Pass = SequenceForward<T, Cell>;
    const SequenceShape& shape = params.shape;
    const Schedule schedule(shape.T, shape.B, shape.lengths);
    const int64_t panels = (shape.H + Pass::kUnits - 1) / Pass::kUnits;
    const int team = plan_team(runtime, shape, schedule, Cell::kGates, panels);
    const Pass pass(params, schedule, team);
    std::unique_ptr<typename Pass::Direction> work[kMaxDirections];
    for (int d = 0; d < shape.directions; ++d)
      work[d] = std::make_unique<typename Pass::Direction>(pass, d);
    run_directions(runtime, shape.directions, team,
                   [&](int d, const Member& member) { pass.run(d, *work[d], member); });
    for (int d = 0; d < shape.directions && pass.keeps_weights(); ++d)
      keep_packed_weights(std::move(work[d]->weights), schedule.steps > 0);
    return Status::ok();
  }

  static Status backward(const SequenceBackwardParams& params, const Runtime& runtime) {
    using Pass = SequenceBackward<T, Cell>;
    const SequenceShape& shape = params.shape;
    const Schedule schedule(shape.T, shape.B, shape.lengths);
    const Pass pass(params, schedule);
    std::unique_ptr<typename Pass::Direction> work[kMaxDirections];
    for (int d = 0; d < shape.directions; ++d)
      work[d] = std::make_unique<typename Pass::Direction>(pass);
    const int team = plan_team(runtime, shape, schedule, Cell::kGates, pass.hidden_panels);
    run_directions(runtime, shape.directions, team,
                   [&](int d, const Member& member) { pass.run(d, *work[d], member); });

    return parameter_and_input_gradients<T>(params, runtime, pass, work);
  }

  static Status step(const StepParams& params, const Runtime& runtime) {
    const Step<T, Cell> step{params};
    const typename Step<T, Cell>::Work work(params);
    const int threads = plan_threads(
        runtime, params.B * Cell::kGates * params.H * (params.I + params.P), step.blocks());
    run_team(runtime, threads, [&](const Member& member) {
      step.prepare(work, member);
      member.barrier->wait();
      step.run(work, member);
    });
    return Status::ok();
  }

  // A step whose work memory stays from run to run.
  class Part final : public decode::StepPart {
   public:
    explicit Part(const StepParams& most) : StepPart(most), work_(most) {}
    void prepare(const Member& member) override { Step<T, Cell>{params}.prepare(work_, member); }
    void run(const Member& member) override { Step<T, Cell>{params}.run(work_, member); }

   private:
    const typename Step<T, Cell>::Work work_;
  };

  // The same from weights in panels.
  class PanelPart final : public decode::StepPart {
   public:
    explicit PanelPart(const StepParams& most) : StepPart(most), step_(params) {}
    void prepare(const Member& member) override { step_.prepare(member); }
    void run(const Member& member) override { step_.run(member); }

   private:
    const PanelStep<T, Cell> step_;
  };

  static decode::StepPart* make_part(const StepParams& most) {
    if (most.ih_panels == nullptr) return new Part(most);
    return new PanelPart(most);
  }

  static int plan_team(const Runtime& runtime, const SequenceShape& shape, const Schedule& schedule,
                       int64_t gates, int64_t panels) {
    const int64_t rows = schedule.N / std::max<int64_t>(1, schedule.steps);
    return plan_threads(runtime, rows * gates * shape.H * shape.P, panels);
  }
};

// Calls run(Launch<T, Cell>{}) for the run-time dtype and cell.
template <class Run>
Status dispatch(DType dtype, Cell cell, const Run& run) {
  const auto with_type = [&](auto zero) {
    using T = decltype(zero);
    using M = Math<AccOf<T>>;
    switch (cell) {
      case Cell::kLstm:
        return run(Launch<T, LstmCell<M>>{});
      case Cell::kGru:
        return run(Launch<T, GruCell<M>>{});
      case Cell::kRnnTanh:
        return run(Launch<T, RnnCell<M, false>>{});
      case Cell::kRnnRelu:
        return run(Launch<T, RnnCell<M, true>>{});
    }
    return Status::invalid("unknown cell");
  };
  switch (dtype) {
    case DType::kFloat32:
      return with_type(float{});
    case DType::kFloat64:
      return with_type(double{});
    case DType::kBFloat16:
      return with_type(BFloat16{});
    default:
      return Status::invalid("dtype: the CPU kernels take float32, float64 and bfloat16");
  }
}

}  // namespace

Status sequence_forward(const SequenceForwardParams& params, const Runtime& runtime) {
  return dispatch(params.shape.dtype, params.shape.cell,
                  [&](auto launch) { return decltype(launch)::forward(params, runtime); });
}

Status sequence_backward(const SequenceBackwardParams& params, const Runtime& runtime) {
  return dispatch(params.shape.dtype, params.shape.cell,
                  [&](auto launch) { return decltype(launch)::backward(params, runtime); });
}

Status step(const StepParams& params, const Runtime& runtime) {
  return dispatch(params.dtype, params.cell,
                  [&](auto launch) { return decltype(launch)::step(params, runtime); });
}

decode::StepPart* make_step_part(const StepParams& most) {
  decode::StepPart* part = nullptr;
  dispatch(most.dtype, most.cell, [&](auto launch) {
    part = decltype(launch)::make_part(most);
    return Status::ok();
  });
  return part;
}

}  // namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA
