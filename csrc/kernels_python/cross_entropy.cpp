// SPDX-License-Identifier: MIT
// NumPy bindings of linear + cross-entropy.
#include "launch.h"
#include "module.h"

namespace seq2seq_ext::kernels_python {
namespace {

using kernels::Reduction;

Reduction reduction_named(const std::string& name) {
  if (name == "none") return Reduction::kNone;
  if (name == "sum") return Reduction::kSum;
  if (name == "mean") return Reduction::kMean;
  throw py::value_error("reduction: expected none, sum or mean, got " + name);
}

kernels::CrossEntropyInputs inputs(const py::array& hidden, const py::array& weight,
                                   const py::array& target, const MaybeArray& bias,
                                   const MaybeArray& class_weight, int64_t ignore_index,
                                   double label_smoothing, const std::string& reduction) {
  if (hidden.ndim() != 2 || weight.ndim() != 2) {
    throw py::value_error("expected hidden (N, H), weight (V, H)");
  }
  kernels::CrossEntropyInputs in{};
  in.dtype = dtype_of(hidden, "hidden");
  in.N = hidden.shape(0);
  in.H = hidden.shape(1);
  in.V = weight.shape(0);
  in.hidden = input(hidden, "hidden", in.dtype, {in.N, in.H});
  in.weight = input(weight, "weight", in.dtype, {in.V, in.H});
  in.bias = input(bias, "bias", in.dtype, {in.V});
  in.class_weight = input(class_weight, "class_weight", state_of(in.dtype), {in.V});
  if (!target.dtype().is(py::dtype::of<int64_t>()) || target.ndim() != 1 ||
      target.shape(0) != in.N || (target.flags() & py::array::c_style) == 0) {
    throw py::value_error("target: expected int64 of shape " + text({in.N}));
  }
  in.target = static_cast<const int64_t*>(target.data());
  in.ignore_index = ignore_index;
  in.label_smoothing = label_smoothing;
  in.reduction = reduction_named(reduction);
  return in;
}

Shape loss_shape(const kernels::CrossEntropyInputs& in) {
  return {in.reduction == Reduction::kNone ? in.N : 1};
}

py::tuple forward(const py::array& hidden, const py::array& weight, const py::array& target,
                  const MaybeArray& bias, const MaybeArray& class_weight, int64_t ignore_index,
                  double label_smoothing, const std::string& reduction, int threads, int64_t kept) {
  kernels::CrossEntropyForwardParams p{};
  p.in =
      inputs(hidden, weight, target, bias, class_weight, ignore_index, label_smoothing, reduction);
  const DType state = state_of(p.in.dtype);
  py::array loss = output(state, loss_shape(p.in)), lse = output(state, {p.in.N});
  py::array sums = output(state, {2});
  p.loss = loss.mutable_data();
  p.lse = lse.mutable_data();
  p.sums = sums.mutable_data();
  py::array logits = output(state, {p.in.N, kept});
  p.kept = kept;
  p.logits = logits.mutable_data();
  launch(&launchers::cross_entropy_forward, p, threads);
  return py::make_tuple(loss, lse, sums, logits);
}

py::tuple backward(const py::array& d_loss, const py::array& lse, const py::array& sums,
                   const py::array& hidden, const py::array& weight, const py::array& target,
                   const MaybeArray& bias, const MaybeArray& class_weight, int64_t ignore_index,
                   double label_smoothing, const std::string& reduction, int threads,
                   const std::string& wanted, const MaybeArray& logits) {
  kernels::CrossEntropyBackwardParams p{};
  p.in =
      inputs(hidden, weight, target, bias, class_weight, ignore_index, label_smoothing, reduction);
  const DType state = state_of(p.in.dtype);
  p.d_loss = input(d_loss, "d_loss", state, loss_shape(p.in));
  p.lse = input(lse, "lse", state, {p.in.N});
  p.sums = input(sums, "sums", state, {2});
  p.kept = logits ? logits->shape(logits->ndim() - 1) : 0;
  p.logits = input(logits, "logits", state, {p.in.N, p.kept});
  py::array grads[] = {output(p.in.dtype, {p.in.N, p.in.H}), output(p.in.dtype, {p.in.V, p.in.H}),
                       output(p.in.dtype, {p.in.V})};
  void** const pointers[] = {&p.d_hidden, &p.d_weight, &p.d_bias};
  py::object results[] = {py::none(), py::none(), py::none()};
  for (int i = 0; i < 3; ++i) {
    if (wanted.find("hwb"[i]) == std::string::npos) continue;
    *pointers[i] = grads[i].mutable_data();
    results[i] = grads[i];
  }
  launch(&launchers::cross_entropy_backward, p, threads);
  return py::make_tuple(results[0], results[1], results[2]);
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
  using namespace py::literals;
  m.def("cross_entropy_forward", &forward, "hidden"_a, "weight"_a, "target"_a, py::kw_only(),
        "bias"_a = py::none(), "class_weight"_a = py::none(), "ignore_index"_a = -100,
        "label_smoothing"_a = 0.0, "reduction"_a = "mean", "threads"_a = 1, "kept"_a = 0,
        "hidden (N, H), weight (V, H), target (N) -> loss (1) or (N), lse (N), sums (2), logits "
        "(N, kept)");
  m.def("cross_entropy_backward", &backward, "d_loss"_a, "lse"_a, "sums"_a, "hidden"_a, "weight"_a,
        "target"_a, py::kw_only(), "bias"_a = py::none(), "class_weight"_a = py::none(),
        "ignore_index"_a = -100, "label_smoothing"_a = 0.0, "reduction"_a = "mean", "threads"_a = 1,
        "wanted"_a = "hwb", "logits"_a = py::none(),
        "d_loss (1) or (N), the forward's lse and sums, its arguments, the logits it kept -> "
        "d_hidden (N, H), d_weight (V, H), d_bias (V), each None unless its letter is in `wanted`");
}

}  // namespace seq2seq_ext::kernels_python
