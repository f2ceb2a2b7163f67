// SPDX-License-Identifier: MIT
// `_kernels`: the torch-free kernels for NumPy, one function a launcher, for kernel development and
// kernel tests.
#include "module.h"

#include "arrays.h"
#include "common/runtime.h"
#include "cpu/launch.h"

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

}  // namespace
}  // namespace seq2seq_ext::kernels_python

PYBIND11_MODULE(_kernels, m) {
  using namespace pybind11::literals;
  m.doc() =
      "The torch-free kernels of seq2seq_ext for NumPy. Arrays are float32, float64, or uint16 for "
      "the bits of bfloat16; "
      "outputs are filled with NaN before the kernel runs.";
  m.def("isa_name", &seq2seq_ext::kernels::cpu::isa_name);
  m.def("chunks", &seq2seq_ext::kernels_python::chunks, "count"_a, "threads"_a);
  seq2seq_ext::kernels_python::bind_cross_entropy(m);
  seq2seq_ext::kernels_python::bind_decode(m);
  seq2seq_ext::kernels_python::bind_recurrent(m);
}
