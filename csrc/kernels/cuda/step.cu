// SPDX-License-Identifier: MIT
#include "cuda/launch.h"
#include "cuda/math.cuh"
#include "cuda/rows_product.h"
#include "cuda/step.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

// h_out = W_hr (o tanh(c)), the bracket rounded to dtype like every h.
template <class T>
Status projected_step(const StepParams& p, const Runtime& runtime) {
  T* const unprojected =
      static_cast<T*>(runtime.allocate(p.B * p.H * int64_t(sizeof(T)), runtime.context));
  if (unprojected == nullptr) return Status::invalid("out of device memory");
  if (Status status = step_gates<T>(p, unprojected, runtime); !status) return status;
  RowsProductParams product{};
  product.dtype = p.dtype;
  product.B = p.B;
  product.N = p.P;
  product.K = p.H;
  product.x = unprojected;
  product.x_stride_b = p.H;
  product.w = p.weights.w_hr;
  product.y = p.h_out;
  product.y_stride_b = p.P;
  return rows_product(product, runtime);
}

}  // namespace

Status step(const StepParams& p, const Runtime& runtime) {
  if (p.B == 0 || p.H == 0) return Status::ok();
  return dispatch_dtype(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (p.weights.w_hr != nullptr) return projected_step<T>(p, runtime);
    return step_gates<T>(p, static_cast<T*>(p.h_out), runtime);
  });
}

}  // namespace seq2seq_ext::kernels::cuda
