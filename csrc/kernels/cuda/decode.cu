// SPDX-License-Identifier: MIT
#include <string>

#include "cuda/decode.h"
#include "cuda/decode_loop.h"
#include "cuda/decode_setup.h"
#include "cuda/decode_steps.h"

namespace seq2seq_ext::kernels::cuda {
namespace {

using MakeRows = std::function<void(int64_t T, DecodeOutput*)>;

Status run(const DecodeSetup& setup) {
  DecodeSteps steps(setup);
  const auto pair = [&](const Runtime& runtime) {
    const Status status = steps.queue(0, runtime);
    return status ? steps.queue(1, runtime) : status;
  };
  return run_pairs(pair, (setup.state.max_new_tokens + 1) / 2, setup.state.live, setup.runtime);
}

Status collect(const DecodeSetup& setup, int64_t T, const DecodeOutput& out, const int* made_by) {
  struct Wanted {
    const DecodeKept& kept;
    void* to;
  };
  const int64_t R = setup.sources.B * setup.o.results;
  Status status = Status::ok();
  for (const Wanted& w : {Wanted{setup.kept_weights, out.attentions},
                          {setup.kept_hidden, out.hidden},
                          {setup.kept_contexts, out.contexts}}) {
    if (!status || w.kept.trace == nullptr) continue;
    status = decode_collect(setup.state, w.kept, R, T, out.lengths, made_by, w.to, setup.runtime);
  }
  return status;
}

Status finish(const DecodeSetup& setup, const MakeRows& make_rows, DecodeOutput* out) {
  const DecodeState& s = setup.state;
  const Runtime& runtime = setup.runtime;
  const int64_t results = setup.o.results;
  Status status =
      decode_summarize(s, results, out->lengths, setup.beam() ? out->ranks : nullptr, runtime);
  DecodeSummary summary;
  if (status) status = read_back(&summary, s.summary, sizeof(summary), runtime);
  if (!status) return status;
  if (summary.undefined != ~uint64_t{0}) {
    out->undefined_source = static_cast<int64_t>(summary.undefined >> 32) / s.K;
    out->undefined_step = static_cast<int64_t>(summary.undefined & 0xffffffffu);
  }
  const auto T = static_cast<int64_t>(summary.longest);
  make_rows(T, out);
  int* made_by = nullptr;
  if (setup.o.attentions || setup.o.states) {
    const int64_t bytes = s.B * results * T * static_cast<int64_t>(sizeof(int));
    made_by = static_cast<int*>(runtime.allocate(bytes + 1, runtime.context));
    if (made_by == nullptr) return Status::invalid("decode: out of device memory");
  }
  status =
      decode_follow(s, results, T, out->lengths, out->tokens, out->log_probs, made_by, runtime);
  return status && made_by != nullptr ? collect(setup, T, *out, made_by) : status;
}

}  // namespace

std::string refuse_decode(const DecodeModel& model, const DecodeOptions& o) {
  if (o.shortlist != nullptr || o.make_scores) return "shortlists of rows and scores of all tokens";
  if (model.screen.panels != nullptr) return "int8 weights";
  if (o.on_step != nullptr) return "a callback";
  return "";
}

Status decode_sequences(const DecodeModel& model, const DecodeSources& sources,
                        const DecodeOptions& options, const Runtime& runtime,
                        const MakeRows& make_rows, DecodeOutput* output) {
  if (const std::string what = refuse_decode(model, options); !what.empty()) {
    return Status::invalid("decode: the loop on a GPU does not take " + what);
  }
  if (sources.B == 0) {
    make_rows(0, output);
    return Status::ok();
  }
  DecodeSetup setup(model, sources, options, runtime);
  Status status = setup.prepare();
  if (status && setup.state.max_new_tokens > 0) status = run(setup);
  return status ? finish(setup, make_rows, output) : status;
}

}  // namespace seq2seq_ext::kernels::cuda
