// SPDX-License-Identifier: MIT
// `_kernels` and `_kernels_cuda_host`: the torch-free kernels for NumPy, one function a launcher,
// for kernel development and kernel tests.
#include "module.h"

#include "launch.h"

#ifdef SEQ2SEQ_EXT_HOST_EXECUTION
#define SEQ2SEQ_EXT_MODULE _kernels_cuda_host
#else
#define SEQ2SEQ_EXT_MODULE _kernels
#endif

PYBIND11_MODULE(SEQ2SEQ_EXT_MODULE, m) {
  m.doc() =
      "The torch-free kernels of seq2seq_ext for NumPy. Arrays are float32, float64, float16 (CUDA "
      "kernels) or uint16 for the bits of bfloat16; outputs are filled with NaN before the kernel "
      "runs.";
  seq2seq_ext::kernels_python::bind_backend(m);
  seq2seq_ext::kernels_python::bind_cross_entropy(m);
  seq2seq_ext::kernels_python::bind_decode(m);
  seq2seq_ext::kernels_python::bind_recurrent(m);
}
