#!/usr/bin/env bash
# Trains the built-in default on whatever adapter is there, growing it in the middle of the run.
# Arguments are passed on: `bash scripts/demo.sh --adapter 1`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

# A run already there is kept.
out=runs/quickstart
for ((n = 2; ; n++)); do
    [[ -e $out ]] || break
    out=runs/quickstart-$n
done

cargo run --release -- train --preset quickstart --out "$out" "$@"
