// SPDX-License-Identifier: MIT
// The decode loop on the CPU: one parallel region for all steps of all sources. Rows that have
// finished leave the batch and waiting sources take their place; what a row finds depends on
// neither.
#pragma once

#include "common/decode.h"
#include "common/runtime.h"
#include "common/status.h"

namespace seq2seq_ext::kernels::cpu {

// Sources are decoded whole. Reentrant.
Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                        const DecodeOptions& options, const Runtime& runtime, DecodeResult* result);

}  // namespace seq2seq_ext::kernels::cpu
