// SPDX-License-Identifier: MIT
#define SEQ2SEQ_EXT_ISA_BASELINE
#include "math_probe_body.h"
