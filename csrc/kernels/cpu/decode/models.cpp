// SPDX-License-Identifier: MIT
#include "cpu/decode/models.h"

#include "cpu/decode/ensemble.h"

namespace seq2seq_ext::kernels::cpu::decode {
namespace {

// As torch promotes them.
DType wider(DType a, DType b) {
  if (a == b) return a;
  return a == DType::kFloat64 || b == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

double rounded_to(DType dtype, double x) {
  if (dtype == DType::kFloat64) return x;
  const float single = static_cast<float>(x);
  return dtype == DType::kFloat32 ? single : to_float(to_bfloat16(single));
}

}  // namespace

Models::Models(const std::vector<DecodeMember>& members, const Plan& plan,
               const KernelTable& kernels, const Runtime& runtime, int threads)
    : members_(members) {
  for (const auto& [model, sources] : members) {
    stacks_.push_back(std::make_unique<Stack>(*model, *sources, kernels, plan.rows));
    VocabPartParams v = plan.vocab(*model);
    if (members.size() > 1) {  // the choice is the ensemble's
      v.task = VocabTask::kForced;
      v.all = plan.task != VocabTask::kForced;
    }
    if (plan.screened()) {
      parts_.emplace_back(kernels.make_vocab_screen(v, threads));
      continue;
    }
    if (plan.normalized()) {
      VocabPartParams best = plan.vocab(*model);
      best.task = VocabTask::kBest;
      best.K = 1;
      normalizer_.reset(kernels.make_vocab_screen(best, threads));
      v.normalizers = normalizer_->normalizers.data();
    }
    v.in_panels = model->layer_panels != nullptr;
    packed_.emplace_back();
    if (v.lists == nullptr) v.panels = output_panels(*model, kernels, runtime, &packed_.back());
    parts_.emplace_back(kernels.make_vocab_part(v, threads));
  }
  if (members.size() == 1) return;
  std::vector<VocabPart*> parts;
  for (const auto& part : parts_) parts.push_back(part.get());
  ensemble_ =
      make_ensemble(plan.vocab(*members[0].model), parts, plan.options.mean_of_logs, threads);
}

int64_t Models::work(const std::vector<DecodeMember>& members, int64_t words) {
  int64_t work = 0;
  for (const auto& [model, sources] : members) {
    work += words * model->P + Stack::work(*model, *sources);
  }
  return work;
}

void Models::begin_step() {
  for (const auto& stack : stacks_) stack->begin_step();
}

void Models::enter(int64_t source, int64_t place) {
  for (const auto& stack : stacks_) stack->enter(source, place);
}

void Models::set_rows(const StepRows& rows) {
  const auto point = [&rows](VocabPart* part) {
    part->params.B = rows.count;
    part->params.keys = rows.keys;
    part->params.lists = rows.lists;
    part->params.constraints = rows.constraints;
  };
  for (size_t m = 0; m < stacks_.size(); ++m) {
    stacks_[m]->set_rows(rows.count, rows.from, rows.source);
    point(parts_[m].get());
    parts_[m]->params.features = stacks_[m]->features();
  }
  if (normalizer_ != nullptr) {
    normalizer_->params.B = rows.count;
    normalizer_->params.features = stacks_[0]->features();
  }
  if (ensemble_ == nullptr) return;
  point(ensemble_.get());
  if (ensemble_->params.task == VocabTask::kForced) return;
  for (const auto& part : parts_) part->params.constraints = nullptr;
}

void Models::gather(int64_t i, int64_t token) {
  for (const auto& stack : stacks_) stack->gather(i, token);
}

void Models::prepare(const Member& member) {
  for (const auto& stack : stacks_) stack->prepare(member);
}

void Models::run_layers(const Member& member) {
  for (const auto& stack : stacks_) stack->run(member);
}

// The sum is rounded model by model to the dtype that torch would give it.
void Models::copy_weights(int64_t i, double* to) const {
  stacks_[0]->copy_weights(i, to);
  if (stacks_.size() == 1) return;
  const int64_t S = members_[0].sources->S;
  DType dtype = members_[0].model->dtype;
  for (size_t m = 1; m < stacks_.size(); ++m) {
    dtype = wider(dtype, members_[m].model->dtype);
    stacks_[m]->add_weights(i, to);
    for (int64_t s = 0; s < S; ++s) to[s] = rounded_to(dtype, to[s]);
  }
  for (int64_t s = 0; s < S; ++s) {
    to[s] = rounded_to(dtype, to[s] / static_cast<double>(stacks_.size()));
  }
}

}  // namespace seq2seq_ext::kernels::cpu::decode
