#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The checks of README.md on real data: run.sh DATA OUT [tatoeba|scan-simple|scan-jump ...]
# DATA holds tatoeba/ and scan/ as the table in README.md says; OUT receives models and logs.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '3,4p' "$0" | cut -c3- >&2
    exit 2
fi
data=$1 out=$2
shift 2
checks=${*:-tatoeba scan-simple scan-jump}
run="${PYTHON:-python} -m seq2seq_ext"
threads=${THREADS:+--threads $THREADS}
mkdir -p "$out"

tatoeba() {
    $run train "$data/tatoeba/eng-fra.tsv.gz" -o "$out/tatoeba" --overwrite \
        --max-words 8 --held-out 1000 --min-frequency 2 --vocab-size 10000 \
        --cell gru --bidirectional --context attention --hidden 256 --embedding 256 \
        --dropout "$2" --batch-size 64 --lr 2e-3 --schedule linear --dtype bfloat16 \
        --epochs "$1" --max-minutes 20 $threads
    $run evaluate "$out/tatoeba" "$out/tatoeba/held_out.tsv" --references any
    $run translate "$out/tatoeba" "I love you ." "I love you." "Where is the station?"
}

scan() {
    # Lake & Baroni 2018, "overall best": LSTM 2x200 without attention.
    $run train "$data/scan/$1.train.tsv.gz" -o "$out/scan-$1" --overwrite \
        --tokenizer whitespace --cell lstm --layers 2 --hidden 200 --embedding 200 \
        --no-bidirectional --context initial_state --bridge copy --dropout 0.2 \
        --batch-size 32 --lr 2e-3 --schedule linear --clip 5 --valid-size 300 \
        --epochs "$2" $threads
    $run evaluate "$out/scan-$1" "$data/scan/$1.test.tsv.gz"
}

for check in $checks; do
    echo "== $check"
    case $check in
        tatoeba) tatoeba 4 0.2 ;;
        scan-simple) scan simple 15 ;;
        scan-jump) scan jump 10 ;;
        *) echo "run.sh: unknown check $check" >&2; exit 2 ;;
    esac 2>&1 | tee "$out/$check.log"
done
