#!/usr/bin/env bash
# Runs every test on the default adapter and, on Linux, those that use the GPU also on the GL adapter: program by program, two at
# a time, because a software driver compiles kernels in one thread, and that is most of the time. What a program says is shown
# where it fails. With arguments, only what they choose: `bash scripts/test.sh --test golden -- --nocapture`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
(($# == 0)) || exec cargo test "${test_build[@]}" "$@"

said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
export said CARGO_MANIFEST_DIR=$PWD

echo "Building the tests."
test_programs "${test_build[@]}" | sed 's/ \(.*\)/ "\1"/' >"$said/programs" # quotes are what xargs wants of a path with spaces

# The longest begin first.
long='^(ops|cases|attention|limits) '

# What uses the GPU, and of the training loop what depends on the adapter: growth, resuming, accumulation, generation.
# Forcing every kernel in turn, the forms for GPUs, and attention with dropout take GL's compiler too long.
# One thread: GL has one context, and wgpu panics where a thread waits a second for another that compiles.
on_gl() {
    local name program which
    grep -E '^(ops|golden|identities|training) ' "$said/programs" | while read -r name program; do
        which='--skip every_candidate --skip @gpu --skip ", dropout"'
        [[ $name != training ]] || which="a_resumed_run_is a_tokenformer_grows accumulated sampling"
        echo "\"$name on GL\" env WGPU_BACKEND=gl $program $which --test-threads 1"
    done
}

# A line for xargs: a name, and a command.
jobs_of_all() {
    grep -E "$long" "$said/programs"
    [[ ! $with_gl ]] || on_gl
    grep -vE "$long" "$said/programs"
    echo "documentation cargo test ${test_build[*]} --doc"
    # Each checks what it computes, and fails where that is wrong.
    for example in train grow custom_op; do
        echo "\"example $example\" cargo run ${test_build[*]} --quiet --example $example"
    done
}

run() {
    local name=$1 log start=$SECONDS
    shift
    log=$(mktemp "$said/log.XXXXXX")
    if "$@" >"$log" 2>&1; then
        echo "$name: $(sed -n 's/^test result: ok. \([0-9]* passed\).*/\1, /p' "$log" | tail -1)$((SECONDS - start)) s"
    else
        cat "$log"
        echo "$name: FAILED"
        return 1
    fi
}
export -f run

with_gl=
[[ $(uname -s) != Linux || " ${setup_missing[*]-} " == *" gl "* ]] || with_gl=1
jobs_of_all | xargs -P 2 -L 1 bash -c 'run "$@"' run || {
    echo "Some tests failed: what they say is above." >&2
    exit 1
}
if [[ $with_gl ]]; then
    echo "All tests passed, on the default adapter and on the GL adapter."
else
    echo "All tests passed on the default adapter. Not on GL: it is for Linux, and needs an EGL driver."
fi
