// SPDX-License-Identifier: MIT
// The schemas of all ops. Loading the library registers them (seq2seq_ext/_backend.py); it is no
// Python module, so building it needs no Python headers. Fake kernels and autograd are registered
// in seq2seq_ext/_registration.py, which the schemas' order of arguments is shared with.
#include "backend.h"

// weights: per direction w_ih, w_hh, [b_ih, b_hh], [w_hr]; the number of directions is h0's first
// dimension.
// save: return what the backward needs (saved_gates, saved_cells); else those are empty.
// wanted: which gradients to compute, bit 0 x, 1 h0, 2 c0, 3 + n weights[n]; the others come back
// with shape (0,). Of linear_cross_entropy: bit 0 hidden, 1 weight, 2 bias.
// kept: logits (N, kept) of the first words, for the backward.
#define REGISTER_SCHEMAS(name, m) STABLE_TORCH_LIBRARY(name, m)  // expands the name

REGISTER_SCHEMAS(SEQ2SEQ_EXT_NAMESPACE, m) {
  m.def(
      "lstm_sequence(Tensor x, Tensor h0, Tensor c0, Tensor[] weights, Tensor? lengths, "
      "bool reverse, bool save) -> (Tensor y, Tensor h_n, Tensor c_n, Tensor saved_gates, "
      "Tensor saved_cells)");
  m.def(
      "gru_sequence(Tensor x, Tensor h0, Tensor[] weights, Tensor? lengths, bool reverse, "
      "bool save) -> (Tensor y, Tensor h_n, Tensor saved_gates)");
  m.def(
      "rnn_sequence(Tensor x, Tensor h0, Tensor[] weights, Tensor? lengths, bool relu, "
      "bool reverse, bool save) -> (Tensor y, Tensor h_n, Tensor saved_gates)");
  m.def(
      "lstm_sequence_backward(Tensor? dy, Tensor? dh_n, Tensor? dc_n, Tensor x, Tensor h0, "
      "Tensor c0, Tensor[] weights, Tensor? lengths, Tensor y, Tensor saved_gates, "
      "Tensor saved_cells, bool reverse, int wanted) -> (Tensor dx, Tensor dh0, Tensor dc0, "
      "Tensor[] dweights)");
  m.def(
      "gru_sequence_backward(Tensor? dy, Tensor? dh_n, Tensor x, Tensor h0, Tensor[] weights, "
      "Tensor? lengths, Tensor y, Tensor saved_gates, bool reverse, int wanted) -> (Tensor dx, "
      "Tensor dh0, Tensor[] dweights)");
  m.def(
      "rnn_sequence_backward(Tensor? dy, Tensor? dh_n, Tensor x, Tensor h0, Tensor[] weights, "
      "Tensor? lengths, Tensor y, Tensor saved_gates, bool relu, bool reverse, int wanted) -> "
      "(Tensor dx, Tensor dh0, Tensor[] dweights)");
  m.def("lstm_step(Tensor x, Tensor h, Tensor c, Tensor[] weights) -> (Tensor h_n, Tensor c_n)");
  m.def("gru_step(Tensor x, Tensor h, Tensor[] weights) -> Tensor");
  m.def("rnn_step(Tensor x, Tensor h, Tensor[] weights, bool relu) -> Tensor");
  m.def(
      "attention_step(Tensor query, Tensor keys, Tensor values, Tensor? lengths, bool additive, "
      "float scale, Tensor? w_query, Tensor? v) -> (Tensor context, Tensor weights)");
  m.def(
      "vocab_pick(Tensor hidden, Tensor weight, Tensor? bias, int k, Tensor? banned=None, "
      "float temperature=1.0, Tensor? panels=None) -> (Tensor log_probs, Tensor indices)");
  m.def(
      "vocab_sample(Tensor hidden, Tensor weight, Tensor? bias, Tensor seed, Tensor step, "
      "Tensor? rows=None, Tensor? banned=None, float temperature=1.0) -> (Tensor log_probs, "
      "Tensor indices)");
  m.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor target, Tensor? bias, "
      "Tensor? class_weight, int ignore_index, float label_smoothing, str reduction, "
      "int kept) -> (Tensor loss, Tensor lse, Tensor sums, Tensor logits)");
  m.def(
      "linear_cross_entropy_backward(Tensor d_loss, Tensor hidden, Tensor weight, Tensor target, "
      "Tensor? bias, Tensor? class_weight, Tensor lse, Tensor sums, Tensor logits, "
      "int ignore_index, float label_smoothing, str reduction, int wanted) -> (Tensor d_hidden, "
      "Tensor d_weight, Tensor d_bias)");
  m.def(
      "decode(str cell, str context, bool input_feeding, Tensor embedding, Tensor[] layers, "
      "Tensor[] attention, bool additive, float scale, Tensor output_weight, Tensor? output_bias, "
      "Tensor? tokens, Tensor? screen, Tensor? screen_numbers, Tensor[] panels, "
      "Tensor? output_panels, Tensor[] hidden, Tensor[] cells, "
      "Tensor? keys, Tensor? values, "
      "Tensor? source_context, Tensor? lengths, str mode, int[] counts, float[] numbers, "
      "int[] eos, int[] banned, int[] phrases, Tensor? allowed, Tensor? prefix, Tensor? row_ids, "
      "Tensor? given, Tensor? given_lengths, int on_step, Tensor? shortlist, "
      "Tensor? shortlist_starts, int go_on, Tensor[] more, int[] more_layout, float[] more_scales, "
      "bool mean_of_logs) -> (Tensor tokens, Tensor lengths, Tensor log_probs, "
      "Tensor ranks, Tensor attentions, Tensor hidden, Tensor contexts, Tensor undefined, "
      "Tensor scores)");
  m.def("pack_panels(Tensor weight, int gates) -> Tensor");                          // CPU
  m.def("linear_rows(Tensor x, Tensor weight, Tensor? bias, bool tanh) -> Tensor");  // CPU
  m.def("cpu_isa() -> str");
  m.def("weight_freezer() -> int");
  m.def(
      "sequence_plan(str cell, ScalarType dtype, int T, int B, int I, int H, int P, "
      "int directions, bool backward, int arch, int sms, int shared_per_block) -> "
      "(bool persistent, str reason, int[] cut)");
}
