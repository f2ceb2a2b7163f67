// SPDX-License-Identifier: MIT
#include "sequence.h"

namespace seq2seq_ext::kernel_bench {

using namespace sequence;

BENCH_CASE(sequence_forward,
           "cell=lstm|gru|tanh|relu T=5 B=3 I=7 H=9 P=H D=1 reverse=0 bias=1 save=1 "
           "lengths=none|full|ragged|zeros layout=dense|batch_first|padded "
           "path=any|stepwise|persistent (arch=75 keeps it stepwise)") {
  Problem p(bench);
  const bool save = bench.args.flag("save", true);
  p.check_path(plan_forward(p.shape_for(false), bench.runtime.device));
  ForwardResults r(p), again(p);
  run_forward(p, r, save);
  run_forward_oracle(p, r, save);
  const DType state = state_type(p.shape.dtype);
  // The cell state is not rounded itself: its error is counted in h's units.
  const double units = allowed(p.shape, 4, p.shape.I + p.shape.P);
  const double state_units = units * epsilon(p.shape.dtype) / epsilon(state);
  bench.check("y", r.y.device, r.y.exact, units);
  for (int d = 0; d < p.shape.directions; ++d) {
    bench.check("h_n " + std::to_string(d), r.h_n[d].device, r.h_n[d].exact, units);
    if (p.lstm())
      bench.check("c_n " + std::to_string(d), r.c_n[d].device, r.c_n[d].exact, state_units);
  }
  run_forward(p, again, save);
  bench.check("again", again.y.device, r.y.device.download(), 0);

  const SequenceForwardParams params = forward_params(p, r, save, false);
  const SequenceShape& s = p.shape;
  bench.time([&] { return kernels::cuda::sequence_forward(params, bench.runtime); },
             double(s.T * s.B * (s.I + p.output_width()) * kernels::size_of(s.dtype)),
             work(s, s.I));
}

}  // namespace seq2seq_ext::kernel_bench
