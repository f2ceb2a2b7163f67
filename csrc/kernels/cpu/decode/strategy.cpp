// SPDX-License-Identifier: MIT
#include "cpu/decode/strategy.h"

#include "cpu/decode/beam.h"
#include "cpu/decode/picking.h"

namespace seq2seq_ext::kernels::cpu::decode {

std::unique_ptr<Strategy> make_strategy(const DecodeOptions& options, const DecodeSources& sources,
                                        int64_t num_words) {
  if (options.mode == DecodeMode::kBeam) {
    return std::make_unique<BeamSearch>(options, sources, num_words);
  }
  return std::make_unique<Picking>(options, sources, num_words);
}

}  // namespace seq2seq_ext::kernels::cpu::decode
