// SPDX-License-Identifier: MIT
#include "math_probe.h"

#include <stdexcept>

#include "cpu/isa.h"

namespace seq2seq_ext::kernels::cpu {
namespace baseline {
void math_probe(char function, bool is_double, int64_t n, const void* x, void* y);
}
#if SEQ2SEQ_EXT_X86_ISAS
namespace avx2 {
void math_probe(char function, bool is_double, int64_t n, const void* x, void* y);
}
namespace avx512 {
void math_probe(char function, bool is_double, int64_t n, const void* x, void* y);
}
#endif
}  // namespace seq2seq_ext::kernels::cpu

namespace seq2seq_ext::kernels_python {

bool math_probe(const std::string& function, kernels::DType dtype, int64_t n, const void* x,
                void* y) {
  if (function != "exp" && function != "sigmoid" && function != "tanh") return false;
  std::string error;
  const kernels::cpu::KernelTable* table = kernels::cpu::kernel_table(&error);
  if (table == nullptr) throw std::runtime_error(error);
  const std::string isa = table->name;
  auto* probe = &kernels::cpu::baseline::math_probe;
#if SEQ2SEQ_EXT_X86_ISAS
  if (isa == "avx2") probe = &kernels::cpu::avx2::math_probe;
  if (isa == "avx512") probe = &kernels::cpu::avx512::math_probe;
#endif
  probe(function[0], dtype == kernels::DType::kFloat64, n, x, y);
  return true;
}

}  // namespace seq2seq_ext::kernels_python
