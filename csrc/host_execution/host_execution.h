// SPDX-License-Identifier: MIT
// CUDA C++ for the host's compiler: what gpu.h includes when it is not nvcc that compiles. Kernels
// then run on the CPU, see core.h.
#pragma once

#include "host_execution/core.h"
// After core.h.
#include "host_execution/builtins.h"
#include "host_execution/warp.h"
// After builtins.h and warp.h.
#include "host_execution/atomics.h"
#include "host_execution/cooperative_groups.h"
#include "host_execution/intrinsics.h"
