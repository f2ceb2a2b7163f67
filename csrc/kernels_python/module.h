// SPDX-License-Identifier: MIT
#pragma once

#include <pybind11/pybind11.h>

namespace seq2seq_ext::kernels_python {

void bind_backend(pybind11::module_& m);
void bind_cross_entropy(pybind11::module_& m);
void bind_decode(pybind11::module_& m);
void bind_decode_sequences(pybind11::module_& m);  // of the CPU's module alone
void bind_recurrent(pybind11::module_& m);
void bind_strategy(pybind11::module_& m);  // of the CPU's module alone

}  // namespace seq2seq_ext::kernels_python
