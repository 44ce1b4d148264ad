#!/usr/bin/env bash
# Runs every test on the default adapter and, on Linux, those that use the GPU once more on the GL adapter.
# Arguments go to the first run: `bash scripts/test.sh --test golden -- --nocapture`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

gpu_tests=(--test ops --test golden --test identities)
# Of the training loop what depends on the adapter: growth, resuming, accumulation, generation.
gpu_training=(a_resumed_run_is a_tokenformer_grows accumulated sampling)

cargo test "${test_build[@]}" "$@"
if (($# == 0)); then
    # Each checks what it computes, and fails where that is wrong.
    for example in train grow custom_op; do
        echo "The example $example."
        cargo run "${test_build[@]}" --quiet --example "$example"
    done
fi
if [[ $(uname -s) != Linux ]]; then
    echo "All tests passed on the default adapter."
elif [[ " ${setup_missing[*]-} " == *" gl "* ]]; then
    echo "All tests passed on the default adapter. Not run on the GL adapter: there is no EGL driver."
else
    echo "Once more on the GL adapter."
    # Forcing every kernel in turn, the forms for GPUs, and attention once more with dropout take GL's compiler too long; the first
    # run did it.
    # One thread: GL has one context, and wgpu panics where a thread waits a second for another that compiles.
    WGPU_BACKEND=gl cargo test "${test_build[@]}" "${gpu_tests[@]}" -- --skip every_candidate --skip @gpu --skip ", dropout" --test-threads 1
    WGPU_BACKEND=gl cargo test "${test_build[@]}" --test training -- "${gpu_training[@]}" --test-threads 1
    echo "All tests passed, on the default adapter and on the GL adapter."
fi
