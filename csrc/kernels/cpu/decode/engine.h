// SPDX-License-Identifier: MIT
// The decode loop on the CPU: one parallel region for all steps of all sources. Rows that have
// finished leave the batch and waiting sources take their place; what a row finds depends on
// neither.
#pragma once

#include <vector>

#include "common/decode.h"
#include "common/runtime.h"
#include "common/status.h"

namespace seq2seq_ext::kernels::cpu {

// Sources are decoded whole, by one model or several. Reentrant.
Status decode_sequences(const std::vector<DecodeMember>& members, const DecodeOptions& options,
                        const Runtime& runtime, DecodeResult* result);

inline Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                               const DecodeOptions& options, const Runtime& runtime,
                               DecodeResult* result) {
  return decode_sequences({{&model, &sources}}, options, runtime, result);
}

}  // namespace seq2seq_ext::kernels::cpu
