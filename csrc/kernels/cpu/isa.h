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

struct KernelTable {
  const char* name;
  Status (*sequence_forward)(const SequenceForwardParams&, const Runtime&);
  Status (*sequence_backward)(const SequenceBackwardParams&, const Runtime&);
  Status (*step)(const StepParams&, const Runtime&);
  Status (*attention_step)(const AttentionStepParams&, const Runtime&);
  Status (*vocab_pick)(const VocabPickParams&, const Runtime&);
  Status (*cross_entropy_forward)(const CrossEntropyForwardParams&, const Runtime&);
  Status (*cross_entropy_backward)(const CrossEntropyBackwardParams&, const Runtime&);
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
  Status vocab_pick(const VocabPickParams&, const Runtime&);                        \
  Status cross_entropy_forward(const CrossEntropyForwardParams&, const Runtime&);   \
  Status cross_entropy_backward(const CrossEntropyBackwardParams&, const Runtime&); \
  }
SEQ2SEQ_EXT_DECLARE_ISA(baseline)
#if SEQ2SEQ_EXT_X86_ISAS
SEQ2SEQ_EXT_DECLARE_ISA(avx2)
SEQ2SEQ_EXT_DECLARE_ISA(avx512)
#endif
#undef SEQ2SEQ_EXT_DECLARE_ISA

}  // namespace seq2seq_ext::kernels::cpu
