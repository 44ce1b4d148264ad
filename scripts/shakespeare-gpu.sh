#!/usr/bin/env bash
# nanoGPT's GPU run on tinyshakespeare, both architectures, three seeds: `bash scripts/shakespeare-gpu.sh TEXT OUT`.
# Goes on where it was stopped. TOKENFORMER names the program, `tokenformer` if it is in the path. One line of JSON for each complete run in OUT/results.jsonl, with the curves in OUT/*/metrics.jsonl.
set -euo pipefail
(($# == 2)) || { echo "give the text and a folder: bash scripts/shakespeare-gpu.sh input.txt results" >&2 && exit 2; }
text=$1 out=$2
program=${TOKENFORMER:-tokenformer}
mkdir -p "$out"
"$program" devices --json >"$out/devices.json"
: >"$out/results.jsonl.new"
for arch in transformer tokenformer; do
    for seed in 1 2 3; do
        run=$out/$arch-$seed
        if compgen -G "$run/checkpoints/step-*.safetensors" >/dev/null; then
            "$program" train --resume "$run" --json >"$run.json"
        else
            "$program" train --preset shakespeare-char-gpu --data "$text" --arch "$arch" --seed "$seed" --out "$run" --json >"$run.json"
        fi
        "$program" eval "$run" --best --json >"$run-eval.json"
        tail -n 1 "$run-eval.json" >>"$out/results.jsonl.new"
        tail -n 1 "$run.json"
    done
done
mv "$out/results.jsonl.new" "$out/results.jsonl"
