// SPDX-License-Identifier: MIT
// Whole-sequence decoding on the device: the loop of cpu/decode/engine.h, of which it takes
// greedy decoding, sampling and beam search of one group, with banned tokens, min_new_tokens and
// allowed tokens. All pointers of the model and the sources, `allowed` and `row_ids` are device
// memory.
//
// Unlike the other launchers this one waits, once, for the last step: the host has to know how long
// the results are.
#pragma once

#include <functional>

#include "common/decode.h"
#include "common/status.h"
#include "cuda/runtime.h"

namespace seq2seq_ext::kernels::cuda {

// R = B * results rows, in device memory of the caller; T is the longest row's length.
struct DecodeOutput {
  int64_t* lengths;  // (R)
  double* ranks;     // (R); kBeam only. -inf: there is no such hypothesis
  int64_t* tokens;   // (R, T); past a row's length: undefined
  void* log_probs;   // (R, T) state; 0 past a row's length
  int64_t undefined_source = -1, undefined_step = -1;  // where logits were not finite first
};

// Why options are not taken; empty: they are.
std::string refuse_decode(const DecodeModel& model, const DecodeOptions& options);

// `make_rows` is asked for tokens and log_probs when T is known; lengths and ranks are there
// before.
Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                        const DecodeOptions& options, const Runtime& runtime,
                        const std::function<void(int64_t T, DecodeOutput*)>& make_rows,
                        DecodeOutput* output);

}  // namespace seq2seq_ext::kernels::cuda
