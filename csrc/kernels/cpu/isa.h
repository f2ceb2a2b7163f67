// SPDX-License-Identifier: MIT
// The run-time choice among the builds of each kernel. A kernel is one body, compiled once per ISA
// into a namespace of that name; isa.cpp calls it through the table chosen here.
#pragma once

#include <string>

#include "common/params.h"
#include "common/runtime.h"
#include "common/status.h"

// The wider builds need x86-64 and a compiler that takes `#pragma GCC target`.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEQ2SEQ_EXT_X86_ISAS 1
#else
#define SEQ2SEQ_EXT_X86_ISAS 0
#endif

namespace seq2seq_ext::kernels::cpu {

namespace decode {
class StepPart;
class AttentionPart;
class VocabPart;
struct VocabPartParams;
}  // namespace decode

struct KernelTable {
  const char* name;
  Status (*sequence_forward)(const SequenceForwardParams&, const Runtime&);
  Status (*sequence_backward)(const SequenceBackwardParams&, const Runtime&);
  Status (*step)(const StepParams&, const Runtime&);
  Status (*attention_step)(const AttentionStepParams&, const Runtime&);
  Status (*linear_rows)(const LinearRowsParams&, const Runtime&);
  Status (*vocab_pick)(const VocabPickParams&, const Runtime&);
  Status (*cross_entropy_forward)(const CrossEntropyForwardParams&, const Runtime&);
  Status (*cross_entropy_backward)(const CrossEntropyBackwardParams&, const Runtime&);
  // Packs unless `panels` is null; returns how many elements they have, -1: an unknown dtype.
  int64_t (*pack_panels)(const PanelsParams&, const Runtime&);
  // Parts of a decode step (cpu/decode/parts.h), to be deleted by the caller; null: an unknown
  // dtype.
  decode::StepPart* (*make_step_part)(const StepParams& most);
  decode::AttentionPart* (*make_attention_part)(const AttentionStepParams& most);
  decode::VocabPart* (*make_vocab_part)(const decode::VocabPartParams& most, int threads);
  decode::VocabPart* (*make_vocab_screen)(const decode::VocabPartParams& most, int threads);
};

// Chosen once per process; null if SEQ2SEQ_EXT_CPU_ISA asks for what is not there, with the reason
// in `error`.
const KernelTable* kernel_table(std::string* error);

#define SEQ2SEQ_EXT_DECLARE_ISA(isa)                                                \
  namespace isa {                                                                   \
  Status sequence_forward(const SequenceForwardParams&, const Runtime&);            \
  Status sequence_backward(const SequenceBackwardParams&, const Runtime&);          \
  Status step(const StepParams&, const Runtime&);                                   \
  Status attention_step(const AttentionStepParams&, const Runtime&);                \
  Status linear_rows(const LinearRowsParams&, const Runtime&);                      \
  Status vocab_pick(const VocabPickParams&, const Runtime&);                        \
  Status cross_entropy_forward(const CrossEntropyForwardParams&, const Runtime&);   \
  Status cross_entropy_backward(const CrossEntropyBackwardParams&, const Runtime&); \
  int64_t pack_panels(const PanelsParams&, const Runtime&);                         \
  decode::StepPart* make_step_part(const StepParams& most);                         \
  decode::AttentionPart* make_attention_part(const AttentionStepParams& most);      \
  decode::VocabPart* make_vocab_part(const decode::VocabPartParams& most, int);     \
  decode::VocabPart* make_vocab_screen(const decode::VocabPartParams& most, int);   \
  }
SEQ2SEQ_EXT_DECLARE_ISA(baseline)
#if SEQ2SEQ_EXT_X86_ISAS
SEQ2SEQ_EXT_DECLARE_ISA(avx2)
SEQ2SEQ_EXT_DECLARE_ISA(avx512)
#endif
#undef SEQ2SEQ_EXT_DECLARE_ISA

}  // namespace seq2seq_ext::kernels::cpu
