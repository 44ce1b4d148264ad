#!/usr/bin/env bash
# Trains for five minutes by studies/autoresearch/experiment.toml: `bash studies/autoresearch/run.sh [TEXT|DIR]`.
# The last line is JSON; its "val_bpb" is the one number that counts. See program.md.
# SEED is another seed than 1337; BUDGET another time than 5m, to try the script itself.
set -euo pipefail
text=${1:-}
[[ -z $text || ! -e $text ]] || text=$(cd "$(dirname "$text")" && pwd)/$(basename "$text")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/setup.sh

data=()
if [[ -n $text ]]; then
    data=(--data "$text")
elif [[ -f data/tinyshakespeare.txt ]]; then
    data=(--data data/tinyshakespeare.txt)
else
    echo "No text was given and there is no data/tinyshakespeare.txt: training on the built-in corpus." >&2
fi
# What makes two results comparable: these win over experiment.toml.
fixed=(--set data.val_fraction=0.1 --set train.eval_rows=256 --set train.eval_interval=0 --set "train.seed=${SEED:-1337}")

echo "Building, which takes minutes the first time." >&2
cargo build --release --quiet
exec "${CARGO_TARGET_DIR:-target}/release/tokenformer" train --config studies/autoresearch/experiment.toml \
    "${data[@]}" "${fixed[@]}" --out runs/autoresearch --overwrite --max-time "${BUDGET:-5m}" --json
