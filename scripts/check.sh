#!/usr/bin/env bash
# The checks, by name: `bash scripts/check.sh format lints`. Without names, all that a Linux machine can do.
#
#   set-up          installs what is missing, and stops where it cannot
#   format          rustfmt
#   lints           clippy, no warnings, on Linux also with the feature mpi
#   documentation   rustdoc, no warnings
#   tests           every test, and on Linux those of the GPU once more on GL
#   validation      models and runs under the validation layer of Vulkan
#   speed           the kernels of a training step beside a baseline of the software driver
#   portable        what an adapter must get right: self-test, golden values, identities, a run that grows
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

set_up() {
    if ((${#setup_missing[@]})); then
        echo "cannot test without: ${setup_missing[*]}" >&2
        exit 1
    fi
}

# Dependencies are not run here, so the macros and build scripts among them need not be fast.
checked_only=(--config 'profile.dev.package."*".opt-level=0')

# A test or an example among the targets keeps the features of the dependencies the same, so that none is checked twice.
lints() {
    cargo clippy "${checked_only[@]}" --all-targets -- -D warnings
    [[ " ${test_build[*]} " != *" mpi "* ]] ||
        cargo clippy "${checked_only[@]}" --lib --test cases --features mpi -- -D warnings
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc "${checked_only[@]}" --no-deps --lib --examples
}

# The program of the tests: its dependencies have the features that the tests want of them, so none is built once more.
program() {
    cargo test "${test_build[@]}" --quiet --no-run --test cli
    echo "${CARGO_TARGET_DIR:-target}/release/tokenformer"
}

# Each relative to the multiply-add peak of its own run. The margin is wide, because such machines are shared.
speed() {
    WGPU_BACKEND=vulkan WGPU_ADAPTER_NAME=llvmpipe "$(program)" bench step --preset bench-tiny --tune off \
        --steps 3 --seconds 0.2 --regress 300 --baseline benches/results/ci-bench-tiny.json
}

portable() {
    local out program
    out=$(mktemp -d)
    program=$(program)
    "$program" devices
    "$program" selftest
    cargo test "${test_build[@]}" --test golden --test identities
    "$program" train --preset quickstart --out "$out/run"
    "$program" eval "$out/run"
    rm -r "$out"
}

check() {
    case $1 in
    set-up) set_up ;;
    format) cargo fmt --check ;;
    lints) lints ;;
    documentation) documentation ;;
    tests) bash scripts/test.sh ;;
    validation) bash scripts/validate.sh --test golden --test step ;;
    speed) speed ;;
    portable) portable ;;
    *) echo "there is no check called $1: the head of scripts/check.sh lists them" >&2 && exit 2 ;;
    esac
}

(($#)) || set -- set-up format lints documentation tests validation speed
for name in "$@"; do
    start=$SECONDS
    echo "== $name"
    check "$name"
    echo "== $name: $((SECONDS - start)) s"
done
echo "== all: $SECONDS s"
