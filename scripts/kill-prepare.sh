#!/usr/bin/env bash
# Kills `tokenformer prepare` at random instants and goes on with it each time: the shards must be those of a process that
# was left alone.
#
#   bash scripts/kill-prepare.sh INPUT [KILLS] [PROGRAM]
#
# INPUT is best a file that takes about half a minute, such as that of scripts/synthetic-jsonl.py.
set -euo pipefail

input=${1:?give a file to prepare}
kills=${2:-20}
program=${3:-target/release/tokenformer}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
options=(--tokenizer gpt2 --shard-tokens 200k --val-fraction 0.01 --skip-bad)

started=$(date +%s%N)
"$program" -q prepare "$input" --out "$work/whole" "${options[@]}" > "$work/said"
milliseconds=$((($(date +%s%N) - started) / 1000000))
cat "$work/said"
killed=0
for _ in $(seq "$kills"); do
    "$program" -q prepare "$input" --out "$work/killed" "${options[@]}" > /dev/null &
    pid=$!
    # From no time at all to a good part of the whole.
    wait=$((RANDOM * 32768 + RANDOM))
    sleep "$(printf '%d.%03d' $((wait % (milliseconds * 2 / kills + 1) / 1000)) $((wait % (milliseconds * 2 / kills + 1) % 1000)))"
    if kill -9 "$pid" 2> /dev/null; then
        killed=$((killed + 1))
    fi
    wait "$pid" 2> /dev/null || true
    if [ -e "$work/killed/manifest.json" ]; then
        break
    fi
done
"$program" -q prepare "$input" --out "$work/killed" "${options[@]}" > /dev/null
diff -r --exclude lock "$work/whole" "$work/killed"
echo "killed $killed times, $(ls "$work/whole" | wc -l) files: the same bytes"
