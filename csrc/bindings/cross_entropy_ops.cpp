// SPDX-License-Identifier: MIT
// Linear + cross-entropy, and its gradients.
#include <stdexcept>
#include <tuple>

#include "backend.h"
#include "tensors.h"

namespace seq2seq_ext::bindings {
namespace {

using kernels::Reduction;
using OptionalTensor = std::optional<Tensor>;

Reduction reduction_named(const std::string& name) {
  if (name == "none") return Reduction::kNone;
  if (name == "sum") return Reduction::kSum;
  if (name == "mean") return Reduction::kMean;
  fail("reduction", "'" + name + "'", "'mean', 'sum' or 'none'");
}

// Values are read, so only of CPU tensors. As torch does, with an IndexError.
void expect_targets(const Tensor& target, int64_t V, int64_t ignore_index) {
  if (!target.is_cpu()) return;
  const auto* values = static_cast<const int64_t*>(target.const_data_ptr());
  for (int64_t n = 0; n < target.size(0); ++n) {
    if ((values[n] >= 0 && values[n] < V) || values[n] == ignore_index) continue;
    std::ostringstream message;
    message << "target: expected 0 to " << V - 1 << ", or ignore_index " << ignore_index << ", got "
            << values[n];
    throw std::out_of_range(message.str());
  }
}

void expect_kept(int64_t kept, int64_t V) {
  if (kept == V || (kept >= 0 && kept < V && kept % kernels::kKeptWords == 0)) return;
  fail("kept", std::to_string(kept), "V = ", V, " or a smaller multiple of ", kernels::kKeptWords);
}

// The arguments that forward and backward share: checked, and kept alive.
class Arguments {
 public:
  kernels::CrossEntropyInputs in;

  Arguments(const Tensor& hidden, const Tensor& weight, const Tensor& target,
            const OptionalTensor& bias, const OptionalTensor& class_weight, int64_t ignore_index,
            double label_smoothing, const std::string& reduction) {
    expect_first(hidden, 2, "hidden", "B, H");
    expect_supported_dtype(hidden, "hidden");
    expect_like(weight, hidden, "weight", "hidden");
    expect_first(weight, 2, "weight", "V, H");
    in.dtype = kernel_dtype(hidden);
    in.N = hidden.size(0);
    in.H = hidden.size(1);
    in.V = weight.size(0);
    expect_shape(weight, {in.V, in.H}, "weight");
    if (target.scalar_type() != ScalarType::Long) {
      fail("target", dtype_text(target.scalar_type()), "dtype int64");
    }
    expect_device(target, hidden, "target", "hidden");
    expect_shape(target, {in.N}, "target");
    if (!(label_smoothing >= 0 && label_smoothing <= 1)) {
      fail("label_smoothing", std::to_string(label_smoothing), "0 to 1");
    }
    in.ignore_index = ignore_index;
    in.label_smoothing = label_smoothing;
    in.reduction = reduction_named(reduction);

    in.hidden = keep(hidden);
    in.weight = keep(weight);
    in.target = static_cast<const int64_t*>(keep(target));
    expect_targets(kept_.back(), in.V, ignore_index);
    if (bias) {
      expect_like(*bias, hidden, "bias", "hidden");
      expect_shape(*bias, {in.V}, "bias");
      in.bias = keep(*bias);
    }
    if (class_weight) {
      expect_device(*class_weight, hidden, "class_weight", "hidden");
      expect_shape(*class_weight, {in.V}, "class_weight");
      in.class_weight = keep_state(*class_weight, hidden, "class_weight");
    }
  }

  const void* keep(const Tensor& tensor) {
    kept_.push_back(as_contiguous(tensor));
    return kept_.back().const_data_ptr();
  }

  // In the type of sums; given in that or in the dtype of `first`.
  const void* keep_state(const Tensor& tensor, const Tensor& first, const char* name) {
    const ScalarType type = tensor.scalar_type(), other = first.scalar_type();
    if (type != other && type != state_type(other)) {
      fail(name, dtype_text(type), "hidden's dtype ", dtype_text(other),
           other == state_type(other) ? "" : " or float32");
    }
    return keep(converted(tensor, state_type(other)));
  }

 private:
  std::vector<Tensor> kept_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy(
    const Tensor& hidden, const Tensor& weight, const Tensor& target, const OptionalTensor& bias,
    const OptionalTensor& class_weight, int64_t ignore_index, double label_smoothing,
    const std::string& reduction, int64_t kept) {
  const Arguments args(hidden, weight, target, bias, class_weight, ignore_index, label_smoothing,
                       reduction);
  kernels::CrossEntropyForwardParams p{args.in};
  const ScalarType state = state_type(hidden.scalar_type());
  const Tensor loss = p.in.reduction == Reduction::kNone ? allocate(hidden, {p.in.N}, state)
                                                         : allocate(hidden, {}, state);
  const Tensor lse = allocate(hidden, {p.in.N}, state), sums = allocate(hidden, {2}, state);
  p.loss = loss.mutable_data_ptr();
  p.lse = lse.mutable_data_ptr();
  p.sums = sums.mutable_data_ptr();
  expect_kept(kept, p.in.V);
  const Tensor logits = allocate(hidden, {p.in.N, kept}, state);
  p.kept = kept;
  p.logits = logits.mutable_data_ptr();
  expect_ok(backend::run(p, hidden));
  return {loss, lse, sums, logits};
}

std::tuple<Tensor, Tensor, Tensor> linear_cross_entropy_backward(
    const Tensor& d_loss, const Tensor& hidden, const Tensor& weight, const Tensor& target,
    const OptionalTensor& bias, const OptionalTensor& class_weight, const Tensor& lse,
    const Tensor& sums, const Tensor& logits, int64_t ignore_index, double label_smoothing,
    const std::string& reduction, int64_t wanted) {
  Arguments args(hidden, weight, target, bias, class_weight, ignore_index, label_smoothing,
                 reduction);
  kernels::CrossEntropyBackwardParams p{args.in};
  if (p.in.reduction == Reduction::kNone) {
    expect_shape(d_loss, {p.in.N}, "d_loss");
  } else {
    expect_shape(d_loss, {}, "d_loss");
  }
  expect_shape(lse, {p.in.N}, "lse");
  expect_shape(sums, {2}, "sums");
  expect_dims(logits, 2, "logits", "N, kept");
  p.kept = logits.size(1);
  expect_kept(p.kept, p.in.V);
  expect_shape(logits, {p.in.N, p.kept}, "logits");
  const std::pair<const Tensor*, const char*> given[] = {
      {&d_loss, "d_loss"}, {&lse, "lse"}, {&sums, "sums"}, {&logits, "logits"}};
  for (const auto& [tensor, name] : given) expect_device(*tensor, hidden, name, "hidden");
  p.d_loss = args.keep_state(d_loss, hidden, "d_loss");
  p.lse = args.keep_state(lse, hidden, "lse");
  p.sums = args.keep_state(sums, hidden, "sums");
  p.logits = args.keep_state(logits, hidden, "logits");

  const auto grad = [&](int bit, std::initializer_list<int64_t> sizes) {
    return wanted >> bit & 1 ? allocate(hidden, sizes) : nothing(hidden);
  };
  const Tensor d_hidden = grad(0, {p.in.N, p.in.H}), d_weight = grad(1, {p.in.V, p.in.H});
  const Tensor d_bias = grad(2, {p.in.V});
  if (wanted & 1) p.d_hidden = d_hidden.mutable_data_ptr();
  if (wanted & 2) p.d_weight = d_weight.mutable_data_ptr();
  if (wanted & 4) p.d_bias = d_bias.mutable_data_ptr();
  expect_ok(backend::run(p, hidden));
  return {d_hidden, d_weight, d_bias};
}

}  // namespace

void register_loss_ops(Library& m) {
  m.impl("linear_cross_entropy", TORCH_BOX(&linear_cross_entropy));
  m.impl("linear_cross_entropy_backward", TORCH_BOX(&linear_cross_entropy_backward));
}

}  // namespace seq2seq_ext::bindings
