// SPDX-License-Identifier: MIT
// The cells, compiled for the ISA: math.h brings in target.h, which must stand before any code that
// is.
#pragma once

// clang-format off
#include "cpu/math.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
// clang-format on
