#!/usr/bin/env bash
# What an adapter gets right, part by part with its time: a row of docs/portability.md.
#
#   bash scripts/portability.sh                               # the default adapter
#   WGPU_BACKEND=gl bash scripts/portability.sh
#   VK_DRIVER_FILES=/path/to/driver_icd.json bash scripts/portability.sh
#   RUNNER="COMMAND ARGUMENTS" bash scripts/portability.sh     # the programs behind a command of one's own
#
# LIMIT is the most seconds of a part (600). Every part is run, whatever became of those before; ends with 1 where one failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source scripts/setup.sh
read -ra runner <<<"${RUNNER:-}"
limit=${LIMIT:-600}

kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT

parts=(golden identities)
test_programs "${test_build[@]}" --test cli "${parts[@]/#/--test=}" >"$kept/programs" || exit 1
program=${CARGO_TARGET_DIR:-target}/release/tokenformer
failed=0

part() {
    local name=$1 start=$SECONDS status=0
    shift
    timeout "$limit" ${runner[@]+"${runner[@]}"} "$@" >"$kept/log" 2>&1 || status=$?
    case $status in
    0) echo "$name: passed in $((SECONDS - start)) s" ;;
    124) echo "$name: not done after $limit s" && failed=1 ;;
    *) echo "$name: FAILED, $(grep -E 'panicked|error' "$kept/log" | head -1)" && failed=1 ;;
    esac
}

${runner[@]+"${runner[@]}"} "$program" devices | sed -n '1,/^$/p'
part selftest "$program" selftest
while read -r name binary; do
    [[ " ${parts[*]} " != *" $name "* ]] || CARGO_MANIFEST_DIR=$PWD part "$name" "$binary"
done <"$kept/programs"
part "a run that grows" "$program" train --preset quickstart --steps 320 --set train.eval_interval=0 --out "$kept/run"
exit "$failed"
