#!/usr/bin/env bash
# Kills a training run at every system call that it makes on its directory (Linux, with strace), goes on after each, and
# compares the end with that of a run that was left alone: the same checkpoint to the byte, the same metrics.
# The run makes its directory, saves three times and removes the older checkpoints.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
command -v strace >/dev/null || { echo "strace is not installed: apt-get install strace" >&2; exit 1; }

cargo build --release --quiet
program=${CARGO_TARGET_DIR:-$PWD/target}/release/tokenformer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TOKENFORMER_CACHE_DIR=$work/cache XDG_RUNTIME_DIR=$work
{
    echo "out_dir = 'run'"
    cat tests/common/tiny-model.toml
    cat <<'END'
[train]
batch_size = 2
max_steps = 6
eval_interval = 3
eval_batches = 1
sample_tokens = 4
checkpoint_interval = 2
keep_last = 1
[data]
corpus_sentences = 200
END
} >"$work/tiny.toml"
train=("$program" train --config ../tiny.toml --tune off)
resume=("$program" train --resume run --tune off)

# Every path that a run may touch, as the program spells it and as the kernel does.
paths=()
for name in run run/{config.toml,metrics.jsonl,lock,checkpoints} run/.{config.toml,metrics.jsonl}.unfinished \
    run/checkpoints/{,.}step-0000000{2,4,6}.safetensors{,.unfinished}; do
    paths+=(-P "$name" -P "$work/try/$name")
done

fresh() {
    rm -rf "$work/try"
    mkdir "$work/try"
    cd "$work/try"
}

# What must be the same in the end.
outcome() {
    ls -A run/checkpoints
    sha256sum run/checkpoints/step-00000006.safetensors
    grep -v '"kind":"run"' run/metrics.jsonl | sed 's/"seconds":[^,}]*//'
}

fresh
"${train[@]}" >/dev/null 2>&1
outcome >"$work/wanted"

fresh
strace -f --seccomp-bpf -qq -o "$work/trace" -e trace=%file,%desc "${paths[@]}" "${train[@]}" >/dev/null 2>&1
outcome | cmp - "$work/wanted"
sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$work/trace" | sort | uniq -c >"$work/calls"
cat "$work/calls"

killed=0 nothing=0
while read -r count call; do
    for ((n = 1; n <= count; n++)); do
        fresh
        status=0
        # Without --seccomp-bpf, under which strace 6.1 injects no signal, and without the threads of the driver (-f),
        # which are slow to follow and touch none of these files. The subshell is for the shell's own "Killed".
        (strace -qq -o "$work/trace" -e "trace=$call" -e "inject=$call:signal=KILL:when=$n" \
            "${paths[@]}" "${train[@]}"; exit $?) >/dev/null 2>&1 || status=$?
        if ((status != 137)); then
            echo "$call $n: exit $status, not killed" >&2
            exit 1
        fi
        killed=$((killed + 1))
        if ! compgen -G 'run/checkpoints/step-*.safetensors' >/dev/null; then
            nothing=$((nothing + 1))
            "${train[@]}" >"$work/log" 2>&1 || { echo "$call $n: cannot start again:" >&2; cat "$work/log" >&2; exit 1; }
        elif [[ ! -e run/checkpoints/step-00000006.safetensors ]]; then
            "${resume[@]}" >"$work/log" 2>&1 || { echo "$call $n: cannot resume:" >&2; cat "$work/log" >&2; exit 1; }
            ! grep -q warning "$work/log" || { echo "$call $n: a checkpoint is damaged:" >&2; cat "$work/log" >&2; exit 1; }
        elif [[ $(ls -A run/checkpoints | wc -l) != 1 ]]; then
            # Killed between the last checkpoint and the removal of the one before: nothing is left to do.
            rm run/checkpoints/step-00000004.safetensors
        fi
        outcome | cmp - "$work/wanted" || { echo "$call $n: another outcome" >&2; exit 1; }
    done
done <"$work/calls"
echo "Killed at each of $killed system calls ($nothing before the first checkpoint): the same outcome every time."
