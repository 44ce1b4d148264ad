#!/usr/bin/env bash
# Golden values, gradients, identities and whole runs with every matrix-product kernel of this adapter forced in turn.
# Takes some minutes on a software driver. WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter; RUNNER, if set, is put
# before each program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

tests=(ops golden identities training)
cargo build --release
mapfile -t programs < <(test_programs --release "${tests[@]/#/--test=}" | cut -d ' ' -f 2-)
((${#programs[@]} == ${#tests[@]}))

read -ra runner <<<"${RUNNER:-}"
mapfile -t candidates < <("${runner[@]}" target/release/tokenformer bench matmul --sizes 64,1x64x64 --all --seconds 0.001 \
    --format csv 2>/dev/null | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "candidate") column = i; next }
        { print $column }' | sort -u)
((${#candidates[@]} > 1))

for candidate in "${candidates[@]}"; do
    for program in "${programs[@]}"; do
        # What tries every candidate by itself, or chooses its own, is not run again for each.
        TOKENFORMER_MATMUL=$candidate "${runner[@]}" "$program" --skip every_candidate --skip @gpu \
            >"${TMPDIR:-/tmp}/candidate.log" 2>&1 || {
            cat "${TMPDIR:-/tmp}/candidate.log"
            echo "FAILED: $program with $candidate" >&2
            exit 1
        }
    done
    echo "$candidate: all passed"
done
echo "${#candidates[@]} candidates passed ${tests[*]}"
