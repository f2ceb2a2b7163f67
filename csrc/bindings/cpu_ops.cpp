// SPDX-License-Identifier: MIT
// The CPU implementations of the ops: tensors in, parameter structs filled, kernels::cpu called.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <numeric>
#include <tuple>

#include "cpu/launch.h"
#include "recurrent_arguments.h"
#include "sequence_ops.h"
#include "torch_runtime.h"

namespace seq2seq_ext::bindings {
namespace {

using kernels::Cell;
using Tensors = std::vector<Tensor>;
using OptionalTensor = std::optional<Tensor>;

void expect_supported(const Tensor& tensor, const char* name) {
  if (tensor.scalar_type() == ScalarType::Half) {
    fail(name, "float16", "dtype float32, float64 or bfloat16 (seq2seq_ext.ops casts float16)");
  }
}

// The kernels pack what they save: the entries of the N valid (time, row) pairs first. Nobody reads
// the rest, but an op's results are to be the same bits every time.
void clear_unused(const kernels::SequenceForwardParams& params) {
  const auto& s = params.shape;
  if (!s.lengths || !params.direction[0].saved_gates) return;
  const int64_t valid = std::accumulate(s.lengths, s.lengths + s.B, int64_t{0});
  const auto clear = [&](void* saved, int64_t entry_size) {
    if (saved) {
      std::memset(static_cast<char*>(saved) + valid * entry_size, 0,
                  (s.T * s.B - valid) * entry_size);
    }
  };
  const int64_t size = kernels::size_of(s.dtype), state_size = size == 8 ? 8 : 4;
  for (int d = 0; d < s.directions; ++d) {
    clear(params.direction[d].saved_gates, kernels::num_saved(s.cell) * s.H * size);
    clear(params.direction[d].saved_cells, s.H * state_size);
  }
}

kernels::Status run_forward(const kernels::SequenceForwardParams& params) {
  clear_unused(params);
  return kernels::cpu::sequence_forward(params, torch_runtime());
}

kernels::Status run_backward(const kernels::SequenceBackwardParams& params) {
  return kernels::cpu::sequence_backward(params, torch_runtime());
}

Cell rnn_cell(bool relu) { return relu ? Cell::kRnnRelu : Cell::kRnnTanh; }

// ------------------------------------------------------------------------------------------------
// Sequences.

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_sequence(const Tensor& x, const Tensor& h0,
                                                                 const Tensor& c0,
                                                                 const Tensors& weights,
                                                                 const OptionalTensor& lengths,
                                                                 bool reverse, bool save) {
  expect_supported(x, "x");
  auto r = sequence_forward(Cell::kLstm, x, h0, c0, weights, lengths, reverse, save, run_forward);
  return {r.y, r.h_n, r.c_n, r.saved_gates, r.saved_cells};
}

std::tuple<Tensor, Tensor, Tensor> gru_sequence(const Tensor& x, const Tensor& h0,
                                                const Tensors& weights,
                                                const OptionalTensor& lengths, bool reverse,
                                                bool save) {
  expect_supported(x, "x");
  auto r = sequence_forward(Cell::kGru, x, h0, std::nullopt, weights, lengths, reverse, save,
                            run_forward);
  return {r.y, r.h_n, r.saved_gates};
}

std::tuple<Tensor, Tensor, Tensor> rnn_sequence(const Tensor& x, const Tensor& h0,
                                                const Tensors& weights,
                                                const OptionalTensor& lengths, bool relu,
                                                bool reverse, bool save) {
  expect_supported(x, "x");
  auto r = sequence_forward(rnn_cell(relu), x, h0, std::nullopt, weights, lengths, reverse, save,
                            run_forward);
  return {r.y, r.h_n, r.saved_gates};
}

std::tuple<Tensor, Tensor, Tensor, Tensors> lstm_sequence_backward(
    const OptionalTensor& dy, const OptionalTensor& dh_n, const OptionalTensor& dc_n,
    const Tensor& x, const Tensor& h0, const Tensor& c0, const Tensors& weights,
    const OptionalTensor& lengths, const Tensor& y, const Tensor& saved_gates,
    const Tensor& saved_cells, bool reverse, int64_t wanted) {
  expect_supported(x, "x");
  auto g = sequence_backward(Cell::kLstm, {dy, dh_n, dc_n, y, saved_gates, saved_cells}, x, h0, c0,
                             weights, lengths, reverse, wanted, run_backward);
  return {g.dx, g.dh0, g.dc0, g.dweights};
}

std::tuple<Tensor, Tensor, Tensors> single_state_backward(
    Cell cell, const OptionalTensor& dy, const OptionalTensor& dh_n, const Tensor& x,
    const Tensor& h0, const Tensors& weights, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& saved_gates, bool reverse, int64_t wanted) {
  expect_supported(x, "x");
  auto g = sequence_backward(cell, {dy, dh_n, std::nullopt, y, saved_gates, std::nullopt}, x, h0,
                             std::nullopt, weights, lengths, reverse, wanted, run_backward);
  return {g.dx, g.dh0, g.dweights};
}

std::tuple<Tensor, Tensor, Tensors> gru_sequence_backward(
    const OptionalTensor& dy, const OptionalTensor& dh_n, const Tensor& x, const Tensor& h0,
    const Tensors& weights, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& saved_gates, bool reverse, int64_t wanted) {
  return single_state_backward(Cell::kGru, dy, dh_n, x, h0, weights, lengths, y, saved_gates,
                               reverse, wanted);
}

std::tuple<Tensor, Tensor, Tensors> rnn_sequence_backward(
    const OptionalTensor& dy, const OptionalTensor& dh_n, const Tensor& x, const Tensor& h0,
    const Tensors& weights, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& saved_gates, bool relu, bool reverse, int64_t wanted) {
  return single_state_backward(rnn_cell(relu), dy, dh_n, x, h0, weights, lengths, y, saved_gates,
                               reverse, wanted);
}

// ------------------------------------------------------------------------------------------------
// Steps.

std::tuple<Tensor, OptionalTensor> step(Cell cell, const Tensor& x, const Tensor& h,
                                        const OptionalTensor& c, const Tensors& weights) {
  expect_first(x, 2, "x", "B, I");
  expect_supported(x, "x");
  expect_like(h, x, "h", "x");
  expect_dims(h, 2, "h", "B, P");
  const int64_t batch = x.size(0), outputs = h.size(1);
  expect_shape(h, {batch, outputs}, "h");
  const WeightList list(cell, weights, x, 1, x.size(1), h, "h");
  const int64_t hidden = list.hidden();

  OptionalTensor state, c_out;
  if (c) {
    expect_cell_state(*c, x, "c");
    expect_shape(*c, {batch, hidden}, "c");
    state = as_contiguous(converted(*c, state_type(x.scalar_type())));
    c_out = allocate(x, {batch, hidden}, state->scalar_type());
  }
  const Tensor h_out = allocate(x, {batch, outputs});
  if (batch > 0) {
    const bool strided = x.is_contiguous() || (x.stride(1) == 1 && x.stride(0) >= x.size(1));
    const Tensor rows = strided ? x : torch::stable::contiguous(x);
    const Tensor h_in = as_contiguous(h);
    kernels::StepParams p;
    p.cell = cell;
    p.dtype = kernel_dtype(x);
    p.B = batch;
    p.I = x.size(1);
    p.H = hidden;
    p.P = outputs;
    p.weights = list.direction(0);
    p.x = rows.const_data_ptr();
    p.x_stride_b = rows.is_contiguous() ? p.I : rows.stride(0);
    p.h = h_in.const_data_ptr();
    p.h_out = h_out.mutable_data_ptr();
    if (c) {
      p.c = state->const_data_ptr();
      p.c_out = c_out->mutable_data_ptr();
    }
    expect_ok(kernels::cpu::step(p, torch_runtime()));
  }
  if (c) c_out = converted(*c_out, c->scalar_type());
  return {h_out, c_out};
}

std::tuple<Tensor, Tensor> lstm_step(const Tensor& x, const Tensor& h, const Tensor& c,
                                     const Tensors& weights) {
  auto [h_out, c_out] = step(Cell::kLstm, x, h, c, weights);
  return {h_out, *c_out};
}

Tensor gru_step(const Tensor& x, const Tensor& h, const Tensors& weights) {
  return std::get<0>(step(Cell::kGru, x, h, std::nullopt, weights));
}

Tensor rnn_step(const Tensor& x, const Tensor& h, const Tensors& weights, bool relu) {
  return std::get<0>(step(rnn_cell(relu), x, h, std::nullopt, weights));
}

// ------------------------------------------------------------------------------------------------
// Decoding.

std::tuple<Tensor, Tensor> attention_step(const Tensor& query, const Tensor& keys,
                                          const Tensor& values, const OptionalTensor& lengths,
                                          bool additive, double scale,
                                          const OptionalTensor& w_query, const OptionalTensor& v) {
  expect_first(query, 2, "query", "B, Q");
  expect_first(keys, 3, "keys", "B, S, A");
  expect_first(values, 3, "values", "B, S, C");
  expect_supported(query, "query");
  kernels::AttentionStepParams p;
  p.score = additive ? kernels::AttentionScore::kAdditive : kernels::AttentionScore::kDot;
  p.dtype = kernel_dtype(query);
  p.B = query.size(0);
  p.Q = query.size(1);
  p.S = keys.size(1);
  p.A = keys.size(2);
  p.C = values.size(2);
  p.scale = scale;
  expect_like(keys, query, "keys", "query");
  expect_shape(keys, {p.B, p.S, p.A}, "keys");
  expect_like(values, query, "values", "query");
  expect_shape(values, {p.B, p.S, p.C}, "values");
  if (w_query) {
    expect_like(*w_query, query, "w_query", "query");
    expect_shape(*w_query, {p.A, p.Q}, "w_query");
  } else if (p.Q != p.A) {
    fail("query", std::to_string(p.Q), "last dimension ", p.A, " (no w_query)");
  }
  if (additive && !v) fail("v", "None", "a tensor, as score is 'additive'");
  if (!additive && v) fail("v", "a tensor", "None, as score is 'dot'");
  if (v) {
    expect_like(*v, query, "v", "query");
    expect_shape(*v, {p.A}, "v");
  }
  const OptionalTensor valid = checked_lengths(lengths, query, "query", p.B, p.S);

  const Tensor context = allocate(query, {p.B, p.C});
  const Tensor weights = allocate(query, {p.B, p.S});
  if (p.B == 0) return {context, weights};
  const Tensor query_in = as_contiguous(query);
  const Rows keys_in(keys), values_in(values);
  const OptionalTensor w_in = w_query ? OptionalTensor(as_contiguous(*w_query)) : std::nullopt;
  const OptionalTensor v_in = v ? OptionalTensor(as_contiguous(*v)) : std::nullopt;
  p.query = query_in.const_data_ptr();
  p.w_query = w_in ? w_in->const_data_ptr() : nullptr;
  p.v = v_in ? v_in->const_data_ptr() : nullptr;
  p.keys = keys_in.tensor.const_data_ptr();
  p.keys_stride_b = keys_in.stride_outer;
  p.keys_stride_s = keys_in.stride_inner;
  p.values = values_in.tensor.const_data_ptr();
  p.values_stride_b = values_in.stride_outer;
  p.values_stride_s = values_in.stride_inner;
  p.lengths = valid ? static_cast<const int64_t*>(valid->const_data_ptr()) : nullptr;
  p.context = context.mutable_data_ptr();
  p.weights = weights.mutable_data_ptr();
  expect_ok(kernels::cpu::attention_step(p, torch_runtime()));
  return {context, weights};
}

std::tuple<Tensor, Tensor> vocab_pick(const Tensor& hidden, const Tensor& weight,
                                      const OptionalTensor& bias, int64_t k) {
  expect_first(hidden, 2, "hidden", "B, H");
  expect_supported(hidden, "hidden");
  expect_like(weight, hidden, "weight", "hidden");
  expect_dims(weight, 2, "weight", "V, H");
  kernels::VocabPickParams p;
  p.dtype = kernel_dtype(hidden);
  p.B = hidden.size(0);
  p.H = hidden.size(1);
  p.V = weight.size(0);
  p.K = k;
  expect_shape(weight, {p.V, p.H}, "weight");
  if (bias) {
    expect_like(*bias, hidden, "bias", "hidden");
    expect_shape(*bias, {p.V}, "bias");
  }
  if (k < 1 || k > p.V) fail("k", std::to_string(k), "1 to V = ", p.V);

  const Tensor log_probs = allocate(hidden, {p.B, k}, state_type(hidden.scalar_type()));
  const Tensor indices = allocate(hidden, {p.B, k}, ScalarType::Long);
  if (p.B == 0) return {log_probs, indices};
  const Tensor hidden_in = as_contiguous(hidden), weight_in = as_contiguous(weight);
  const OptionalTensor bias_in = bias ? OptionalTensor(as_contiguous(*bias)) : std::nullopt;
  p.hidden = hidden_in.const_data_ptr();
  p.weight = weight_in.const_data_ptr();
  p.bias = bias_in ? bias_in->const_data_ptr() : nullptr;
  p.log_probs = log_probs.mutable_data_ptr();
  p.indices = static_cast<int64_t*>(indices.mutable_data_ptr());
  expect_ok(kernels::cpu::vocab_pick(p, torch_runtime()));
  return {log_probs, indices};
}

std::string cpu_isa() { return kernels::cpu::isa_name(); }

}  // namespace
}  // namespace seq2seq_ext::bindings

STABLE_TORCH_LIBRARY_IMPL(seq2seq_ext, CPU, m) {
  using namespace seq2seq_ext::bindings;
  m.impl("lstm_sequence", TORCH_BOX(&lstm_sequence));
  m.impl("gru_sequence", TORCH_BOX(&gru_sequence));
  m.impl("rnn_sequence", TORCH_BOX(&rnn_sequence));
  m.impl("lstm_sequence_backward", TORCH_BOX(&lstm_sequence_backward));
  m.impl("gru_sequence_backward", TORCH_BOX(&gru_sequence_backward));
  m.impl("rnn_sequence_backward", TORCH_BOX(&rnn_sequence_backward));
  m.impl("lstm_step", TORCH_BOX(&lstm_step));
  m.impl("gru_step", TORCH_BOX(&gru_step));
  m.impl("rnn_step", TORCH_BOX(&rnn_step));
  m.impl("attention_step", TORCH_BOX(&attention_step));
  m.impl("vocab_pick", TORCH_BOX(&vocab_pick));
}

// No tensor tells a device here, so it is not registered for one.
STABLE_TORCH_LIBRARY_IMPL(seq2seq_ext, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&seq2seq_ext::bindings::cpu_isa));
}
