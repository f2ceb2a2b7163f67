// SPDX-License-Identifier: MIT
#include "cpu/isa.h"
#if SEQ2SEQ_EXT_X86_ISAS
#define SEQ2SEQ_EXT_ISA_AVX2
#include "cpu/panels_pack.h"
#endif
