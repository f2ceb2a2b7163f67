#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Everything that a GPU is needed for, in one command of at most nine minutes on 16 cores: builds for
# the GPU that is there; checks (PTX wrappers, kernels, ops); times what marks are stated for; checks
# what takes long (endurance, sanitizers); times the rest.
#
#   benchmarks/run_gpu.sh            rows go to benchmarks/results, or to $SEQ2SEQ_EXT_RESULTS
#
# Needs: nvcc, cmake, ninja, and a Python ($PYTHON, default python3) with a CUDA torch, numpy, pytest
# and hypothesis; no network. BUDGET (seconds, default 530) bounds all of it: what comes last is cut.
# What was finished when the time ran out is kept: reports and rows are written as they come.
set -u
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
BUDGET=${BUDGET:-530}
export SEQ2SEQ_EXT_RESULTS=${SEQ2SEQ_EXT_RESULTS:-$PWD/benchmarks/results}
export SEQ2SEQ_EXT_STRICT=1 PYTHONUNBUFFERED=1 PYTHONPATH=$PWD
mkdir -p "$SEQ2SEQ_EXT_RESULTS" build
REPORT=$SEQ2SEQ_EXT_RESULTS/gpu_report.txt
BENCH=${BENCH:-build/gpu/kernel_bench}
: >"$REPORT"
failures=0

say() { printf '%s\n' "$*" | tee -a "$REPORT"; }
left() { echo $((BUDGET - SECONDS)); }

# step NAME SECONDS COMMAND...: its output to the report, its end and time to the terminal, too.
step() {
  local name=$1 limit=$2 start=$SECONDS status
  shift 2
  [ "$limit" -gt "$(left)" ] && limit=$(left)
  if [ "$limit" -lt 5 ]; then
    say "SKIP $name: no time left"
    return 1
  fi
  printf '\n---- %s: %s\n' "$name" "$*" >>"$REPORT"
  # Interrupted, pytest still says what has failed so far.
  timeout --signal=INT --kill-after=5 "$limit" "$@" >>"$REPORT" 2>&1
  status=$?
  case $status in
    0) say "ok   $name ($((SECONDS - start)) s)" ;;
    124 | 137) say "TIME $name: stopped after $limit s" && failures=$((failures + 1)) ;;
    *) say "FAIL $name: exit $status ($((SECONDS - start)) s), see $REPORT" && failures=$((failures + 1)) ;;
  esac
  return $status
}

# The lines of tests/host_execution/cases.txt as the words of one kernel_bench run that times nothing;
# "small": without the large ones.
bench_words() {
  sed -e 's/#.*//' -e "${1:+/^large:/d}" -e 's/^large://' tests/host_execution/cases.txt |
    awk 'NF { printf "%s%s time=0", separator, $0; separator = " , " }'
}

# All of them as a line for each kernel.
kernel_words() {
  bench_words "" | sed 's/ , /\n/g' |
    awk '$1 != kernel { printf "%s%s", newline, $0; kernel = $1; newline = "\n"; next }
         { printf " , %s", $0 }'
}

capability=$("$PYTHON" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || {
  say "FAIL no GPU that torch can use"
  exit 1
}
say "$(nvidia-smi --query-gpu=name,driver_version,clocks.sm,memory.total --format=csv,noheader)"
say "$(nvcc --version | tail -n 2 | head -n 1); $("$PYTHON" -c 'import torch; print("torch", torch.__version__)')"

# ---- Build, the two halves side by side.
export TORCH_CUDA_ARCH_LIST=${capability%?}.${capability#"${capability%?}"} FORCE_CUDA=1
cores=$(nproc)
export MAX_JOBS=$(((cores + 1) / 2))
timeout --kill-after=5 200 "$PYTHON" setup.py -q build_ext --inplace >build/gpu_library.log 2>&1 &
library=$!
step "build kernel_bench" 180 sh -c "cmake --log-level=WARNING -S . -B build/gpu -G Ninja \
  -DSEQ2SEQ_EXT_CUDA=ON -DSEQ2SEQ_EXT_PYTHON=OFF -DCMAKE_CUDA_ARCHITECTURES=$capability &&
  cmake --build build/gpu -j $MAX_JOBS"
if wait $library; then say "ok   build _C and _C_cuda ($SECONDS s)"; else
  cat build/gpu_library.log >>"$REPORT"
  say "FAIL build _C and _C_cuda, see $REPORT"
  failures=$((failures + 1))
fi

# ---- Checks without which no time is worth reading. The wrappers first: all else stands on them.
step "PTX wrappers against plain loops" 30 "$BENCH" ptx
# A process each: after an illegal access nothing more runs in the same one.
step "every kernel against the CPU kernel in float64" 60 sh -c \
  'status=0; while read -r words; do "$0" $words || status=1; done; exit $status' "$BENCH" \
  <<<"$(kernel_words)"
step "ops on CUDA against the float64 oracle" 80 "$PYTHON" -m pytest -q --maxfail=10 --tb=short \
  -p no:cacheprovider -m cuda tests/ops

# ---- The timings that marks are stated for, before the checks that take long.
step "sequences of the marks" 75 "$PYTHON" -m benchmarks.bench_gpu_sequence --quick --seconds 55
step "single steps" 50 "$PYTHON" -m benchmarks.bench_gpu_step --seconds 40
# 50 steps each; what repeats them is tried in turn.
step "decode loops of the marks" 60 sh -c 'status=0; for loop in while replay queue; do
    echo "SEQ2SEQ_EXT_DECODE_LOOP=$loop"
    for rows in 1 32 256; do
      SEQ2SEQ_EXT_DECODE_LOOP=$loop "$0" decode B=$rows dtype=bfloat16 E=1024 H=1024 C=1024 A=1024 \
        S=50 V=32000 max=50 ends=0 || status=1
    done
  done; exit $status' "$BENCH"
LATENCY=$SEQ2SEQ_EXT_RESULTS/latency_gpu
step "barrier latencies" 20 sh -c "$BENCH latency >'$LATENCY.txt'; status=\$?
  cat '$LATENCY.txt'; exit \$status"
if [ -f "$LATENCY.txt" ]; then
  { echo "kind,blocks,us" && sed -n 's/^csv latency,//p' "$LATENCY.txt"; } >"$LATENCY.csv"
  rm "$LATENCY.txt"
fi

# ---- The other checks.
# A persistent kernel that waits for ever is stopped by the step's time limit and counted a failure.
step "persistent kernels at full size, again and again" 40 "$PYTHON" -m benchmarks.gpu_endurance
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    # shellcheck disable=SC2046
    step "compute-sanitizer $tool" 30 compute-sanitizer --tool $tool --error-exitcode 9 \
      "$BENCH" $(bench_words small)
  done
else
  say "SKIP compute-sanitizer is not installed"
fi

# ---- All other timings, in the time that is left.
rest=$(left)
step "all sequences" "$rest" "$PYTHON" -m benchmarks.bench_gpu_sequence --rest \
  --seconds $((rest - 25))

say ""
sed -n '/^ceilings/p; /geometric mean/p; /^time is over/p' "$REPORT"
grep -E "^(LSTM|GRU |pick|attention)" "$REPORT" | head -n 60
say "$failures failed; $SECONDS s; report and rows: $SEQ2SEQ_EXT_RESULTS"
[ "$failures" -eq 0 ]
