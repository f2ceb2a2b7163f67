// SPDX-License-Identifier: MIT
// First include of every per-ISA source file, after it has defined exactly one of
// SEQ2SEQ_EXT_ISA_BASELINE, _AVX2, _AVX512. All headers that hold inline code which must NOT be
// compiled for the ISA come first (otherwise the linker could pick an AVX-512 copy of, say,
// std::vector's code for the baseline); what follows this header in the file is compiled for the
// ISA, inside `namespace seq2seq_ext::kernels::cpu::SEQ2SEQ_EXT_ISA`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "common/dtype.h"
#include "common/params.h"
#include "common/runtime.h"
#include "common/status.h"
#include "cpu/isa.h"
#include "cpu/schedule.h"
#include "cpu/scratch.h"
#include "cpu/team.h"

// Vectors passed by value never cross a compilation unit here.
#pragma GCC diagnostic ignored "-Wpsabi"
// The AVX-512 headers of GCC 12 start some intrinsics from a deliberately undefined register.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#if defined(SEQ2SEQ_EXT_ISA_AVX512)
#define SEQ2SEQ_EXT_ISA avx512
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c")
#elif defined(SEQ2SEQ_EXT_ISA_AVX2)
#define SEQ2SEQ_EXT_ISA avx2
#pragma GCC target("avx2,fma,f16c")
#elif defined(SEQ2SEQ_EXT_ISA_BASELINE)
#define SEQ2SEQ_EXT_ISA baseline
#else
#error "define SEQ2SEQ_EXT_ISA_BASELINE, SEQ2SEQ_EXT_ISA_AVX2 or SEQ2SEQ_EXT_ISA_AVX512 first"
#endif
