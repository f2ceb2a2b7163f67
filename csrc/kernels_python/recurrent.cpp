// SPDX-License-Identifier: MIT
// NumPy bindings of the recurrent kernels. A direction's weights are a tuple (w_ih, w_hh, b_ih,
// b_hh, w_hr), the last three of them None where there are none.
#include <array>

#include "launch.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

using kernels::Cell;

Cell cell_of(const std::string& name) {
  if (name == "lstm") return Cell::kLstm;
  if (name == "gru") return Cell::kGru;
  if (name == "rnn_tanh") return Cell::kRnnTanh;
  if (name == "rnn_relu") return Cell::kRnnRelu;
  throw py::value_error("cell: expected lstm, gru, rnn_tanh or rnn_relu, got " + name);
}

using Weights = std::array<MaybeArray, 5>;

std::array<Shape, 5> weight_shapes(Cell cell, int64_t I, int64_t H, int64_t P) {
  const int64_t GH = kernels::num_gates(cell) * H;
  return {Shape{GH, I}, Shape{GH, P}, Shape{GH}, Shape{GH}, Shape{P, H}};
}

kernels::RecurrentWeights weights_of(const Weights& w, Cell cell, DType dtype, int64_t I, int64_t H,
                                     int64_t P) {
  const auto shapes = weight_shapes(cell, I, H, P);
  if (!w[0] || !w[1] || w[2].has_value() != w[3].has_value()) {
    throw py::value_error("weights: expected w_ih, w_hh and both biases or none");
  }
  if (H < 1 || P < 1) throw py::value_error("weights: expected H >= 1 and P >= 1");
  if (!w[4] && P != H) throw py::value_error("weights: w_hr is missing (P != H)");
  kernels::RecurrentWeights r;
  r.w_ih = input(w[0], "w_ih", dtype, shapes[0]);
  r.w_hh = input(w[1], "w_hh", dtype, shapes[1]);
  r.b_ih = input(w[2], "b_ih", dtype, shapes[2]);
  r.b_hh = input(w[3], "b_hh", dtype, shapes[3]);
  r.w_hr = input(w[4], "w_hr", dtype, shapes[4]);
  return r;
}

// H from the recurrent weights, since P may differ from it.
int64_t hidden_size(const Weights& w, Cell cell) {
  if (!w[0] || w[0]->ndim() != 2) throw py::value_error("w_ih: expected (G*H, I)");
  return w[0]->shape(0) / kernels::num_gates(cell);
}

kernels::SequenceShape shape_of(const std::string& cell, const py::array& x, const py::array& h0,
                                const std::vector<Weights>& weights,
                                const std::vector<bool>& reverse, const MaybeArray& lengths) {
  if (x.ndim() != 3 || h0.ndim() != 3) throw py::value_error("expected x (T, B, I), h0 (D, B, P)");
  kernels::SequenceShape s{};
  s.cell = cell_of(cell);
  s.dtype = dtype_of(x, "x");
  s.T = x.shape(0);
  s.B = x.shape(1);
  s.I = x.shape(2);
  s.P = h0.shape(2);
  s.directions = static_cast<int>(weights.size());
  if (s.directions < 1 || s.directions > kernels::kMaxDirections ||
      reverse.size() != weights.size() || h0.shape(0) != s.directions) {
    throw py::value_error("expected one or two directions in weights, reverse and h0");
  }
  s.H = hidden_size(weights[0], s.cell);
  for (int d = 0; d < s.directions; ++d) s.reverse[d] = reverse[d];
  s.lengths = input_lengths(lengths, s.B, s.T);
  return s;
}

// Direction d of an array whose first dimension is the direction.
template <class T>
T* direction_of(T* data, int d, int64_t count, DType dtype) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return data == nullptr ? nullptr : static_cast<Byte*>(data) + d * count * kernels::size_of(dtype);
}

py::dict sequence_forward(const std::string& cell, const py::array& x, const py::array& h0,
                          const std::vector<Weights>& weights, const MaybeArray& c0,
                          const MaybeArray& lengths, const std::vector<bool>& reverse, bool save,
                          int threads) {
  kernels::SequenceForwardParams p{};
  p.shape = shape_of(cell, x, h0, weights, reverse, lengths);
  const kernels::SequenceShape& s = p.shape;
  const int64_t D = s.directions;
  const DType dtype = s.dtype, state = state_of(dtype);
  const bool is_lstm = s.cell == Cell::kLstm;
  if (is_lstm != c0.has_value()) throw py::value_error("c0: for the LSTM, and only for it");
  p.x = input(x, "x", dtype, {s.T, s.B, s.I}, true);
  p.x_stride_t = stride(x, 0);
  p.x_stride_b = stride(x, 1);
  const void* h = input(h0, "h0", dtype, {D, s.B, s.P});
  const void* c = input(c0, "c0", state, {D, s.B, s.H});
  const int64_t saved = kernels::num_saved(s.cell) * s.H;
  py::array y = output(dtype, {s.T, s.B, D * s.P}), h_n = output(dtype, {D, s.B, s.P});
  py::array c_n = output(state, {is_lstm ? D : 0, s.B, s.H});
  py::array gates = output(dtype, {save ? D : 0, s.T * s.B, saved});
  py::array cells = output(state, {save && is_lstm ? D : 0, s.T * s.B, s.H});
  p.y = y.mutable_data();
  p.y_stride_t = s.B * D * s.P;
  p.y_stride_b = D * s.P;
  for (int d = 0; d < D; ++d) {
    auto& to = p.direction[d];
    to.weights = weights_of(weights[d], s.cell, dtype, s.I, s.H, s.P);
    to.h0 = direction_of(h, d, s.B * s.P, dtype);
    to.c0 = direction_of(c, d, s.B * s.H, state);
    to.h_n = direction_of(h_n.mutable_data(), d, s.B * s.P, dtype);
    if (is_lstm) to.c_n = direction_of(c_n.mutable_data(), d, s.B * s.H, state);
    if (save) to.saved_gates = direction_of(gates.mutable_data(), d, s.T * s.B * saved, dtype);
    if (save && is_lstm) {
      to.saved_cells = direction_of(cells.mutable_data(), d, s.T * s.B * s.H, state);
    }
  }
  launch(&launchers::sequence_forward, p, threads);
  using namespace py::literals;
  return py::dict("y"_a = y, "h_n"_a = h_n, "c_n"_a = c_n, "saved_gates"_a = gates,
                  "saved_cells"_a = cells);
}

py::dict sequence_backward(const std::string& cell, const py::array& x, const py::array& h0,
                           const std::vector<Weights>& weights, const py::dict& forward,
                           const MaybeArray& dy, const MaybeArray& dh_n, const MaybeArray& dc_n,
                           const MaybeArray& c0, const MaybeArray& lengths,
                           const std::vector<bool>& reverse, int threads) {
  kernels::SequenceBackwardParams p{};
  p.shape = shape_of(cell, x, h0, weights, reverse, lengths);
  const kernels::SequenceShape& s = p.shape;
  const int64_t D = s.directions, saved = kernels::num_saved(s.cell) * s.H;
  const DType dtype = s.dtype, state = state_of(dtype);
  const bool is_lstm = s.cell == Cell::kLstm;
  if (is_lstm != c0.has_value()) throw py::value_error("c0: for the LSTM, and only for it");
  const auto from_forward = [&](const char* name) { return forward[name].cast<py::array>(); };
  const py::array y = from_forward("y"), gates = from_forward("saved_gates"),
                  cells = from_forward("saved_cells");
  p.x = input(x, "x", dtype, {s.T, s.B, s.I}, true);
  p.x_stride_t = stride(x, 0);
  p.x_stride_b = stride(x, 1);
  p.y = input(y, "y", dtype, {s.T, s.B, D * s.P});
  p.dy = input(dy, "dy", dtype, {s.T, s.B, D * s.P});
  p.y_stride_t = p.dy_stride_t = s.B * D * s.P;
  p.y_stride_b = p.dy_stride_b = D * s.P;
  const void* h = input(h0, "h0", dtype, {D, s.B, s.P});
  const void* c = input(c0, "c0", state, {D, s.B, s.H});
  const void* dh = input(dh_n, "dh_n", dtype, {D, s.B, s.P});
  const void* dc = input(dc_n, "dc_n", state, {D, s.B, s.H});
  const void* saved_gates = input(gates, "saved_gates", dtype, {D, s.T * s.B, saved});
  const void* saved_cells =
      is_lstm ? input(cells, "saved_cells", state, {D, s.T * s.B, s.H}) : nullptr;
  py::array dx = output(dtype, {s.T, s.B, s.I}), dh0 = output(dtype, {D, s.B, s.P});
  py::array dc0 = output(state, {is_lstm ? D : 0, s.B, s.H});
  p.dx = dx.mutable_data();
  py::list grads;
  for (int d = 0; d < D; ++d) {
    auto& to = p.direction[d];
    to.weights = weights_of(weights[d], s.cell, dtype, s.I, s.H, s.P);
    to.h0 = direction_of(h, d, s.B * s.P, dtype);
    to.c0 = direction_of(c, d, s.B * s.H, state);
    to.dh_n = direction_of(dh, d, s.B * s.P, dtype);
    to.dc_n = direction_of(dc, d, s.B * s.H, state);
    to.saved_gates = direction_of(saved_gates, d, s.T * s.B * saved, dtype);
    to.saved_cells = direction_of(saved_cells, d, s.T * s.B * s.H, state);
    to.dh0 = direction_of(dh0.mutable_data(), d, s.B * s.P, dtype);
    if (is_lstm) to.dc0 = direction_of(dc0.mutable_data(), d, s.B * s.H, state);
    const auto shapes = weight_shapes(s.cell, s.I, s.H, s.P);
    void** const slots[] = {&to.grads.w_ih, &to.grads.w_hh, &to.grads.b_ih, &to.grads.b_hh,
                            &to.grads.w_hr};
    py::list of_direction;
    for (int i = 0; i < 5; ++i) {
      if (!weights[d][i]) {
        of_direction.append(py::none());
        continue;
      }
      py::array grad = output(dtype, shapes[i]);
      *slots[i] = grad.mutable_data();
      of_direction.append(grad);
    }
    grads.append(of_direction);
  }
  launch(&launchers::sequence_backward, p, threads);
  using namespace py::literals;
  return py::dict("dx"_a = dx, "dh0"_a = dh0, "dc0"_a = dc0, "weights"_a = grads);
}

py::tuple step(const std::string& cell, const py::array& x, const py::array& h,
               const Weights& weights, const MaybeArray& c, int threads) {
  if (x.ndim() != 2 || h.ndim() != 2) throw py::value_error("expected x (B, I), h (B, P)");
  kernels::StepParams p{};
  p.cell = cell_of(cell);
  p.dtype = dtype_of(x, "x");
  p.B = x.shape(0);
  p.I = x.shape(1);
  p.P = h.shape(1);
  p.H = hidden_size(weights, p.cell);
  const bool is_lstm = p.cell == Cell::kLstm;
  if (is_lstm != c.has_value()) throw py::value_error("c: for the LSTM, and only for it");
  const DType state = state_of(p.dtype);
  p.weights = weights_of(weights, p.cell, p.dtype, p.I, p.H, p.P);
  p.x = input(x, "x", p.dtype, {p.B, p.I}, true);
  p.x_stride_b = stride(x, 0);
  p.h = input(h, "h", p.dtype, {p.B, p.P});
  p.c = input(c, "c", state, {p.B, p.H});
  py::array h_out = output(p.dtype, {p.B, p.P}), c_out = output(state, {is_lstm ? p.B : 0, p.H});
  p.h_out = h_out.mutable_data();
  p.c_out = is_lstm ? c_out.mutable_data() : nullptr;
  launch(&launchers::step, p, threads);
  return py::make_tuple(h_out, c_out);
}

}  // namespace

void bind_recurrent(py::module_& m) {
  using namespace py::literals;
  const std::vector<bool> forward{false};
  m.def("sequence_forward", &sequence_forward, "cell"_a, "x"_a, "h0"_a, "weights"_a, py::kw_only(),
        "c0"_a = py::none(), "lengths"_a = py::none(), "reverse"_a = forward, "save"_a = true,
        "threads"_a = 1,
        "x (T, B, I), h0 (D, B, P), weights: one tuple a direction -> y (T, B, D*P), h_n, c_n, "
        "saved_*");
  m.def("sequence_backward", &sequence_backward, "cell"_a, "x"_a, "h0"_a, "weights"_a, "forward"_a,
        py::kw_only(), "dy"_a = py::none(), "dh_n"_a = py::none(), "dc_n"_a = py::none(),
        "c0"_a = py::none(), "lengths"_a = py::none(), "reverse"_a = forward, "threads"_a = 1,
        "forward: what sequence_forward returned -> dx, dh0, dc0, weights");
  m.def("step", &step, "cell"_a, "x"_a, "h"_a, "weights"_a, py::kw_only(), "c"_a = py::none(),
        "threads"_a = 1, "x (B, I), h (B, P), c (B, H) -> h (B, P), c (B, H)");
}

}  // namespace seq2seq_ext::kernels_python
