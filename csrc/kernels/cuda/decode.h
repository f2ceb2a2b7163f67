// SPDX-License-Identifier: MIT
// Whole-sequence decoding on the device: the loop of cpu/decode/engine.h, for one model, with all
// its options but int8 weights, shortlists of the sources' own, scores of all tokens and a
// callback; nor does it ask whether to go on. All pointers of the model, the sources and the
// options are device memory.
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
  // Where they are asked for: (R, T, S), (R, T, P) and, with kAttention, (R, T, C) dtype; likewise.
  void *attentions = nullptr, *hidden = nullptr, *contexts = nullptr;
  int64_t undefined_source = -1, undefined_step = -1;  // where logits were not finite first
};

// Why options are not taken; empty: they are.
std::string refuse_decode(const DecodeModel& model, const DecodeOptions& options);

// `make_rows` is asked for all but lengths and ranks, which are there before, when T is known.
Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                        const DecodeOptions& options, const Runtime& runtime,
                        const std::function<void(int64_t T, DecodeOutput*)>& make_rows,
                        DecodeOutput* output);

}  // namespace seq2seq_ext::kernels::cuda
