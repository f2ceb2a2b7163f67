// SPDX-License-Identifier: MIT
// The services that kernels take from torch: its thread pool and its BLAS.
#pragma once

#include "common/runtime.h"

namespace seq2seq_ext::bindings {

kernels::Runtime cpu_runtime();

}  // namespace seq2seq_ext::bindings
