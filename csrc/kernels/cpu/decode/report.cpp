// SPDX-License-Identifier: MIT
#include "cpu/decode/report.h"

namespace seq2seq_ext::kernels::cpu::decode {

Report::Report(const DecodeOptions& options, int64_t sources) : options_(options) {
  if (!wanted()) return;
  const int64_t count = sources * options.slots;
  tokens_.resize(count);
  parents_.resize(count);
  log_probs_.resize(count);
  done_.resize(count);
}

void Report::note(int64_t source, const Choice* choices, const Candidates* const* candidates,
                  bool live) {
  const bool beam = options_.mode == DecodeMode::kBeam;
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    if (!beam && candidates[slot] == nullptr) continue;  // has ended before
    const int64_t at = source * options_.slots + slot;
    tokens_[at] = choices[slot].token;
    parents_[at] = choices[slot].parent;
    log_probs_[at] = choices[slot].log_prob;
    done_[at] = beam ? !live : !choices[slot].live;
  }
}

bool Report::tell() {
  const DecodeStep step{step_++, tokens_.data(), parents_.data(), log_probs_.data(), done_.data()};
  const bool go_on = options_.on_step(step, options_.on_step_context);
  for (size_t i = 0; i < done_.size(); ++i) {  // what is told of these from now on
    if (!done_[i]) continue;
    tokens_[i] = -1;
    parents_[i] = static_cast<int64_t>(i) % options_.slots;
    log_probs_[i] = 0;
  }
  return go_on;
}

}  // namespace seq2seq_ext::kernels::cpu::decode
