// SPDX-License-Identifier: MIT
#define SEQ2SEQ_EXT_ISA_BASELINE
#include "cpu/panels_pack.h"
