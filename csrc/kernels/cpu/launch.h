// SPDX-License-Identifier: MIT
// Host entry points of the CPU kernels. Each validates what only the kernel can know and returns a
// Status; shapes and pointers are the caller's responsibility (bindings/checks.h). Reentrant; no
// global state but the chosen ISA, idle work memory (scratch.h: up to 256 MiB, kept for the next
// call) and packed weights (packed_weights.h: as much).
#pragma once

#include "common/params.h"
#include "common/runtime.h"
#include "common/status.h"

namespace seq2seq_ext::kernels::cpu {

Status sequence_forward(const SequenceForwardParams& params, const Runtime& runtime);
Status sequence_backward(const SequenceBackwardParams& params, const Runtime& runtime);
Status step(const StepParams& params, const Runtime& runtime);
Status attention_step(const AttentionStepParams& params, const Runtime& runtime);
Status linear_rows(const LinearRowsParams& params, const Runtime& runtime);
Status pack_panels(const PanelsParams& params, const Runtime& runtime, int64_t* count);
Status vocab_pick(const VocabPickParams& params, const Runtime& runtime);
Status cross_entropy_forward(const CrossEntropyForwardParams& params, const Runtime& runtime);
Status cross_entropy_backward(const CrossEntropyBackwardParams& params, const Runtime& runtime);

// "avx512", "avx2" or "baseline": the best one this machine has, or SEQ2SEQ_EXT_CPU_ISA. An unknown
// or unsupported value of the variable makes every kernel return its message.
const char* isa_name();

}  // namespace seq2seq_ext::kernels::cpu
