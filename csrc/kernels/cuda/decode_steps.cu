// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "cuda/decode_steps.h"
#include "cuda/launch.h"

namespace seq2seq_ext::kernels::cuda {

Status DecodeSteps::queue(int parity, const Runtime& outer) {
  const Runtime runtime = memory_.begin(outer);
  const void* hidden = nullptr;
  Status status = gather(parity, runtime);
  if (status && d_.constrains()) status = constrain(parity, runtime);
  if (status) status = layers(parity, runtime, &hidden);
  if (status && d_.attends()) status = attend(parity, hidden, runtime);
  if (status) status = keep(hidden, runtime);
  if (status) status = vocabulary(d_.attends() ? d_.features.of[1 - parity] : hidden, runtime);
  return status ? choose(parity, runtime) : status;
}

Status DecodeSteps::gather(int parity, const Runtime& runtime) const {
  DecodeGather g{};
  g.state = d_.state;
  g.x = d_.x;
  g.embedding = d_.m.embedding;
  g.width = d_.m.E * d_.size();
  g.second_width = d_.second_width() * d_.size();
  g.fed = d_.m.input_feeding;
  if (g.second_width > 0) g.second = g.fed ? d_.features.of[parity] : d_.sources.context;
  return decode_gather(g, runtime);
}

Status DecodeSteps::constrain(int parity, const Runtime& runtime) const {
  DecodeConstraints c = d_.constraints;
  c.state = d_.state;
  c.before = d_.histories.of[parity];
  c.now = d_.histories.of[1 - parity];
  return decode_constrain(c, runtime);
}

Status DecodeSteps::layers(int parity, const Runtime& runtime, const void** hidden) const {
  const void* x = d_.x;
  for (int64_t l = 0; l < d_.m.L; ++l) {
    StepParams p{};
    p.cell = d_.m.cell;
    p.dtype = d_.m.dtype;
    p.B = d_.state.rows;
    p.I = p.x_stride_b = l == 0 ? d_.inputs() : d_.m.P;
    p.H = d_.m.H;
    p.P = d_.m.P;
    p.weights = d_.m.layers[l];
    p.x = x;
    p.h = d_.hidden[l].of[parity];
    p.h_out = d_.hidden[l].of[1 - parity];
    p.c = d_.cells[l].of[parity];
    p.c_out = d_.cells[l].of[1 - parity];
    p.from = d_.state.from;
    if (const Status status = cuda::step(p, runtime); !status) return status;
    x = p.h_out;
  }
  *hidden = x;
  return Status::ok();
}

Status DecodeSteps::attend(int parity, const void* query, const Runtime& runtime) const {
  const DecodeModel& m = d_.m;
  const DecodeSources& sources = d_.sources;
  AttentionStepParams a{};
  a.score = m.score;
  a.dtype = m.dtype;
  a.B = d_.state.rows;
  a.Q = m.P;
  a.A = m.A;
  a.S = sources.S;
  a.C = m.C;
  a.scale = m.scale;
  a.query = query;
  a.w_query = m.w_query;
  a.v = m.v;
  a.keys = sources.keys;
  a.keys_stride_b = sources.S * m.A;
  a.keys_stride_s = m.A;
  a.values = sources.values;
  a.values_stride_b = sources.S * m.C;
  a.values_stride_s = m.C;
  a.lengths = sources.lengths;
  a.source = d_.state.K > 1 ? d_.state.source : nullptr;
  a.context = d_.context;
  a.weights = d_.weights;
  if (const Status status = attention_step(a, runtime); !status) return status;
  // tanh(W_c c + W_s s) is an Elman step from s on the input c.
  StepParams p{};
  p.cell = Cell::kRnnTanh;
  p.dtype = m.dtype;
  p.B = d_.state.rows;
  p.I = p.x_stride_b = m.C;
  p.H = p.P = m.P;
  p.weights.w_ih = m.combine_ih;
  p.weights.w_hh = m.combine_hh;
  p.x = d_.context;
  p.h = query;
  p.h_out = d_.features.of[1 - parity];
  return cuda::step(p, runtime);
}

Status DecodeSteps::keep(const void* hidden, const Runtime& runtime) const {
  Status status = Status::ok();
  for (DecodeKept kept : {d_.kept_weights, d_.kept_hidden, d_.kept_contexts}) {
    if (!status || kept.trace == nullptr) continue;
    if (kept.rows == nullptr) kept.rows = hidden;
    status = decode_keep(d_.state, kept, runtime);
  }
  return status;
}

Status DecodeSteps::vocabulary(const void* features, const Runtime& runtime) const {
  const DecodeState& s = d_.state;
  const DecodeOptions& o = d_.o;
  VocabPickParams p{};
  p.dtype = d_.m.dtype;
  p.B = s.rows;
  p.H = d_.m.P;
  p.V = d_.m.V;
  p.K = s.C;
  p.hidden = features;
  p.weight = d_.m.output_weight;
  p.bias = d_.m.output_bias;
  p.banned = reinterpret_cast<const int32_t*>(s.banned);
  p.rows_a_ban = s.ban_rows > 1 ? s.K : std::max<int64_t>(s.rows, 1);
  if (d_.constrains()) {
    p.banned = reinterpret_cast<const int32_t*>(d_.constraints.banned);
    p.rows_a_ban = 1;
  }
  if (d_.penalizes()) {
    p.seen = reinterpret_cast<const int32_t*>(d_.constraints.seen);
    p.repetition_penalty = o.repetition_penalty;
    if (s.scores_of_words != s.log_probs) p.scores = s.scores_of_words;
  }
  p.plain = true;
  p.log_probs = s.log_probs;
  p.indices = s.indices;
  if (d_.draws_all()) {
    p.temperature = o.temperature;
    p.seed = s.seed;
    p.step = s.step;
    p.rows = s.row_ids;
  }
  return vocab_pick(p, runtime);
}

Status DecodeSteps::choose(int parity, const Runtime& runtime) const {
  const DecodeState& s = d_.state;
  const DecodeOptions& o = d_.o;
  if (d_.covers()) {
    const DecodeCoverage c{
        s,          d_.m.dtype,         d_.sources.S,           o.coverage_penalty,
        d_.weights, d_.sources.lengths, d_.coverage.of[parity], d_.coverage.of[1 - parity]};
    if (const Status status = decode_cover(c, runtime); !status) return status;
  }
  if (d_.beam()) {
    return decode_beam(s, {d_.norms, o.diversity_penalty, o.early_stopping}, runtime);
  }
  if (!d_.draws_some()) return decode_pick(s, runtime);
  return decode_draw(s, {o.temperature, o.top_p, std::log(std::max(o.min_p, 0.0))}, runtime);
}

}  // namespace seq2seq_ext::kernels::cuda
