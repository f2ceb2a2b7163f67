// SPDX-License-Identifier: MIT
// What `_kernels` has beside the kernels: the threads, the vector functions that all share, and
// decoding, whole and its part without a model.
#include <atomic>
#include <cstdlib>
#include <new>

#include "launch.h"
#include "math_probe.h"
#include "module.h"

namespace {

// How often the module's operator new has been called; negative: it is the sanitizer's.
#ifdef __SANITIZE_ADDRESS__
std::atomic<int64_t> allocations{-1};
#else
std::atomic<int64_t> allocations{0};
#endif

}  // namespace

#ifndef __SANITIZE_ADDRESS__

// The default ones but for the count; as operator new[].
void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const p = std::malloc(size > 0 ? size : 1)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }

#endif

namespace seq2seq_ext::kernels_python {
namespace {

// What a Runtime makes of `count` items: (begin, end) of each chunk, and whether each nested call
// made one chunk.
py::list chunks(int64_t count, int threads) {
  struct Context {
    std::vector<int64_t> begin, end;  // indexed by begin
    std::vector<int> nested;
    kernels::Runtime runtime;
  } context{std::vector<int64_t>(count, -1), std::vector<int64_t>(count, -1),
            std::vector<int>(count, 0), kernels::default_runtime(threads)};
  {
    py::gil_scoped_release release;
    context.runtime.parallel_for(
        count,
        [](int64_t begin, int64_t end, void* opaque) {
          Context& c = *static_cast<Context*>(opaque);
          c.begin[begin] = begin;
          c.end[begin] = end;
          c.runtime.parallel_for(
              100, [](int64_t, int64_t, void* calls) { ++*static_cast<int*>(calls); },
              &c.nested[begin]);
        },
        &context);
  }
  py::list result;
  for (int64_t i = 0; i < count; ++i) {
    if (context.begin[i] < 0) continue;
    result.append(py::make_tuple(context.begin[i], context.end[i], context.nested[i]));
  }
  return result;
}

py::array evaluate(const std::string& function, const py::array& x) {
  const DType dtype = dtype_of(x, "x");
  if (dtype == DType::kBFloat16) throw py::value_error("x: expected float32 or float64");
  const Shape shape(x.shape(), x.shape() + x.ndim());
  const void* data = input(x, "x", dtype, shape);
  py::array y = output(dtype, shape);
  if (!math_probe(function, dtype, x.size(), data, y.mutable_data())) {
    throw py::value_error("function: expected exp, sigmoid or tanh, got " + function);
  }
  return y;
}

}  // namespace

void bind_backend(py::module_& m) {
  using namespace py::literals;
  m.def("isa_name", &kernels::cpu::isa_name);
  m.def("chunks", &chunks, "count"_a, "threads"_a);
  m.def("evaluate", &evaluate, "function"_a, "x"_a,
        "The kernels' own exp, sigmoid or tanh of every element of x");
  m.def(
      "allocations", [] { return allocations.load(); },
      "How often the kernels and this module have called operator new; -1: not counted");
  bind_decode_sequences(m);
  bind_strategy(m);
}

}  // namespace seq2seq_ext::kernels_python
