#!/usr/bin/env bash
# Trains for five minutes by studies/autoresearch/experiment.toml: `bash studies/autoresearch/run.sh [TEXT|DIR]`.
# The last line is JSON; its "val_bpb" is the one number that counts. See program.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/setup.sh

data=()
if (($#)); then
    data=(--data "$1")
elif [[ -f data/tinyshakespeare.txt ]]; then
    data=(--data data/tinyshakespeare.txt)
else
    echo "No text was given and there is no data/tinyshakespeare.txt: training on the built-in corpus." >&2
fi
# What makes two results comparable; --set overrides experiment.toml.
fixed=(--set data.val_fraction=0.1 --set train.eval_rows=256 --set train.eval_interval=0 --set train.seed=1337)
# To try the script itself.
budget=${TOKENFORMER_BUDGET:-5m}

cargo build --release --quiet
exec "${CARGO_TARGET_DIR:-target}/release/tokenformer" train --config studies/autoresearch/experiment.toml \
    "${data[@]}" "${fixed[@]}" --out runs/autoresearch --overwrite --max-time "$budget" --json
