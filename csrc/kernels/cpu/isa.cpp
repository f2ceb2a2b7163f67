// SPDX-License-Identifier: MIT
#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <exception>

#include "cpu/launch.h"

namespace seq2seq_ext::kernels::cpu {
namespace {

struct Candidate {
  KernelTable table;
  bool supported;
};

struct Choice {
  const KernelTable* table = nullptr;
  std::string error;
};

Choice choose() {
#define SEQ2SEQ_EXT_TABLE(isa)                                                           \
  {                                                                                      \
    #isa, isa::sequence_forward, isa::sequence_backward, isa::step, isa::attention_step, \
        isa::linear_rows, isa::vocab_pick, isa::cross_entropy_forward,                   \
        isa::cross_entropy_backward, isa::pack_panels, isa::make_step_part,              \
        isa::make_attention_part, isa::make_vocab_part, isa::make_vocab_screen           \
  }
  static const Candidate candidates[] = {
  // best first
#if SEQ2SEQ_EXT_X86_ISAS
      {SEQ2SEQ_EXT_TABLE(avx512),
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma")},
      {SEQ2SEQ_EXT_TABLE(avx2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {SEQ2SEQ_EXT_TABLE(baseline), true},
  };
#undef SEQ2SEQ_EXT_TABLE
  const char* forced = std::getenv("SEQ2SEQ_EXT_CPU_ISA");
  const bool is_forced = forced != nullptr && *forced != '\0';
  for (const Candidate& candidate : candidates) {
    if (is_forced && std::strcmp(forced, candidate.table.name) != 0) continue;
    if (candidate.supported) return {&candidate.table, ""};
    if (is_forced) {
      return {nullptr, std::string("SEQ2SEQ_EXT_CPU_ISA=") + forced +
                           ": this processor does not have the instructions for it"};
    }
  }
  return {nullptr,
          std::string("SEQ2SEQ_EXT_CPU_ISA: expected one of avx512, avx2, baseline (as built "
                      "for this machine), got '") +
              forced + "'"};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

const KernelTable* kernel_table(std::string* error) {
  if (choice().table == nullptr && error != nullptr) *error = choice().error;
  return choice().table;
}

const char* isa_name() { return choice().table == nullptr ? "none" : choice().table->name; }

#define SEQ2SEQ_EXT_LAUNCH(kernel, Params)                      \
  Status kernel(const Params& params, const Runtime& runtime) { \
    std::string error;                                          \
    const KernelTable* table = kernel_table(&error);            \
    if (table == nullptr) return Status::invalid(error);        \
    try {                                                       \
      return table->kernel(params, runtime);                    \
    } catch (const std::exception& e) { /* out of memory */     \
      return Status::invalid(e.what());                         \
    }                                                           \
  }
SEQ2SEQ_EXT_LAUNCH(sequence_forward, SequenceForwardParams)
SEQ2SEQ_EXT_LAUNCH(sequence_backward, SequenceBackwardParams)
SEQ2SEQ_EXT_LAUNCH(step, StepParams)
SEQ2SEQ_EXT_LAUNCH(attention_step, AttentionStepParams)
SEQ2SEQ_EXT_LAUNCH(linear_rows, LinearRowsParams)
SEQ2SEQ_EXT_LAUNCH(vocab_pick, VocabPickParams)
SEQ2SEQ_EXT_LAUNCH(cross_entropy_forward, CrossEntropyForwardParams)
SEQ2SEQ_EXT_LAUNCH(cross_entropy_backward, CrossEntropyBackwardParams)
#undef SEQ2SEQ_EXT_LAUNCH

Status pack_panels(const PanelsParams& params, const Runtime& runtime, int64_t* count) {
  std::string error;
  const KernelTable* table = kernel_table(&error);
  if (table == nullptr) return Status::invalid(error);
  *count = table->pack_panels(params, runtime);
  if (*count >= 0) return Status::ok();
  return Status::invalid("pack_panels: expected float32, float64 or bfloat16");
}

}  // namespace seq2seq_ext::kernels::cpu
