// SPDX-License-Identifier: MIT
// Here, and not in headers that are compiled for several ISAs.
#include "cpu/decode/parts.h"

namespace seq2seq_ext::kernels::cpu::decode {

StepPart::~StepPart() = default;
AttentionPart::~AttentionPart() = default;
VocabPart::~VocabPart() = default;

}  // namespace seq2seq_ext::kernels::cpu::decode
