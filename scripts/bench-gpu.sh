#!/usr/bin/env bash
# What is worth knowing of a GPU, in at most eight minutes, into benches/results/NAME-*: first whether its results are right,
# then what it can do, matrix products, attention, whole steps and, where it is there, PyTorch on the same GPU.
#
#   bash scripts/bench-gpu.sh NAME [ORACLE]
#
# NAME is part of the file names, such as h100-vulkan. ORACLE is the folder of the PyTorch model that benches/torch_gpu.py
# times; without it PyTorch is left out. Every part has a time limit, prints its command, and leaves its results when it is
# done, or cut, or has failed: NAME-PART.json of what was measured, NAME-PART.log, and a line in NAME-parts.jsonl.
#
#   PACK=DIR     what scripts/pack-gpu.sh made, for a machine without cargo
#   BIN, TESTS   a program, and a folder of test programs, built elsewhere; without these two and PACK, cargo builds them
#   OUT          another folder for the results
#   TEXT         what to train on for 1,000 steps; the pack may have one
#   BUDGET       seconds for everything, 480 by default, building not counted
#   QUICK=1      sizes that say nothing about speed, to try the script; a CPU will do
#   ONLY         parts to run, as a pattern: ONLY='selftest|step-.*'
#   WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
name=${1:?give a name for the results, such as h100-vulkan}
oracle=${2:-}
out=${OUT:-benches/results}
budget=${BUDGET:-480}
quick=${QUICK:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)
parts=$out/$name-parts.jsonl
: >"$parts"

if [[ -n ${PACK:-} ]]; then
    mkdir "$work/programs"
    tar -C "$work/programs" -xzf "$PACK/programs.tar.gz" || exit 1
    BIN=$work/programs/tokenformer TESTS=$work/programs/tests
    [[ -z $oracle && -d $PACK/oracle ]] && oracle=$PACK/oracle
    [[ -z ${TEXT:-} && -e $PACK/text.txt ]] && TEXT=$PACK/text.txt
    finds_gpu() {
        timeout 30 "$BIN" devices 2>/dev/null | grep -E '^ +backend, type .*, (discrete|integrated|virtual)$' >/dev/null
    }
    # A loader of the machine's own goes first: it fits the driver.
    if finds_gpu; then
        echo "loader: the machine's own"
    else
        mkdir "$work/loader"
        for package in "$PACK"/loader/*.deb; do [[ ! -e $package ]] || dpkg -x "$package" "$work/loader"; done
        libraries=$(find "$work/loader" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
        [[ -z $libraries ]] || export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        # Where containers have NVIDIA's driver: another one may be listed before it, or alone.
        nvidia=/usr/local/nvidia/share
        if [[ -z ${VK_DRIVER_FILES:-} && -e $nvidia/vulkan/icd.d/nvidia_icd.json ]]; then
            export VK_DRIVER_FILES=$nvidia/vulkan/icd.d/nvidia_icd.json
            vendor=$nvidia/glvnd/egl_vendor.d/10_nvidia.json
            [[ ! -e $vendor ]] || export __EGL_VENDOR_LIBRARY_FILENAMES=$vendor
        fi
        echo "loader: the packed one, ${libraries:-which is empty}; driver: ${VK_DRIVER_FILES:-as the loader finds it}"
        finds_gpu || echo "loader: no GPU is found with it either; what follows is about a software adapter, or fails" >&2
    fi
fi
if [[ -z ${BIN:-} ]]; then
    source scripts/setup.sh
    cargo build --release || exit 1
    # All at once later on: what is compiled then would count as theirs.
    cargo test --release --no-run || exit 1
fi
bin=${BIN:-target/release/tokenformer}
# Where the fixtures of the tests are, wherever the tests were built.
export CARGO_MANIFEST_DIR=$PWD
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$work} TOKENFORMER_CACHE_DIR=${TOKENFORMER_CACHE_DIR:-$work/cache}
SECONDS=0

quoted() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# part NAME LIMIT COMMAND...: runs it for at most LIMIT seconds, or what is left of all.
part() {
    local what=$1 limit=$2 start=$SECONDS status cut=false
    shift 2
    [[ -z ${ONLY:-} || $what =~ ^($ONLY)$ ]] || return 0
    ((limit < budget - SECONDS)) || limit=$((budget - SECONDS))
    if ((limit <= 5)); then
        echo "== $what: no time left"
        printf '{"part": %s, "command": %s, "left_out": true}\n' "$(quoted "$what")" "$(quoted "$*")" >>"$parts"
        return 0
    fi
    echo "== $what (at $start s, at most $limit s): $*"
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$out/$name-$what.log" | tail -n "${SHOWN:-12}"
    status=${PIPESTATUS[0]}
    ((status != 124 && status != 137)) || cut=true
    printf '{"part": %s, "command": %s, "seconds": %d, "status": %d, "cut": %s, "results": %s}\n' "$(quoted "$what")" \
        "$(quoted "$*")" $((SECONDS - start)) "$status" "$cut" "$(quoted "$(grep '^test result' "$out/$name-$what.log" | tail -1)")" >>"$parts"
    $cut && echo "== $what: cut after $limit s"
    ((status == 0)) || $cut || echo "== $what: failed with status $status"
    return 0
}

record() {
    local what=$1 limit=$2
    shift 2
    part "$what" "$limit" "$bin" "$@" --out "$out/$name-$what.json"
}

tests() {
    local what=$1 limit=$2
    shift 2
    if [[ -n ${TESTS:-} ]]; then
        part "test-$what" "$limit" "$TESTS/$what" "$@"
    elif [[ -z ${BIN:-} ]]; then
        part "test-$what" "$limit" cargo test --release --test "$what" -- "$@"
    fi
}

# What it prints says which GPU and driver all of this is about.
part adapter 20 "$bin" devices
command -v nvidia-smi >/dev/null && SHOWN=20 part nvidia-smi 20 nvidia-smi

# Right? Every kernel alone first; then all at once, for nothing is timed, and the host computes most of the time.
if [[ -n $quick ]]; then
    part selftest 120 "$bin" selftest --quick
    tests ops 60 gelu/
else
    part selftest 60 "$bin" selftest
    for what in ops golden identities growing training limits attention cooperative products dropout optimizers; do
        SHOWN=2 tests "$what" 110 &
    done
fi
wait

# How fast? `seconds` is for one case; on GPUs a case ends when its time is steady.
if [[ -n $quick ]]; then
    seconds=(--seconds 0.02)
    products=64 shapes=64x48x80 attention=(--batch 1 --heads 2 --seq 32 --head-width 16)
    model=(--preset bench-tiny --set model.num_layers=1 --set model.seq_length=16 --batch-size 2)
    steps=2 run=(--preset bench-tiny --set model.num_layers=1 --set model.seq_length=16 --batch-size 2 --steps 2)
    tune=off
else
    seconds=(--seconds 0.3)
    products=4096
    # Of the 150m model at 4 x 1024 tokens: queries to outputs, feed-forward, head.
    shapes=4096x768x768,4096x3072x768,4096x768x3072,4096x50304x768
    attention=(--batch 4 --heads 12 --seq 1024 --head-width 64)
    model=(--preset 150m --set model.seq_length=1024 --batch-size 4)
    steps=20 run=(--preset 150m --set model.seq_length=1024 --batch-size 4 --steps 20)
    tune=quick
fi
model+=(--set train.total_batch_tokens=0)
run+=(--set train.total_batch_tokens=0 --set train.eval_interval=0 --tune "$tune" --overwrite)
# What matters most first: time may end before the rest.
for precision in f32 f16; do
    record "step-150m-$precision" 100 bench step "${model[@]}" --precision "$precision" --tune "$tune" --steps "$steps" "${seconds[@]}"
done
if [[ -n $oracle ]] && python3 -c 'import torch' 2>/dev/null; then
    torch=(--oracle "$oracle" --batch 4 --seconds 2 --out "$out/$name-torch.json")
    [[ -z $quick ]] || torch=(--oracle "$oracle" --batch 2 --seconds 0.1 --cpu --out "$out/$name-torch.json")
    part torch 100 python3 benches/torch_gpu.py "${torch[@]}" --precisions float32,float16
fi
record attention 25 bench attention "${attention[@]}" --dtype f32,f16 "${seconds[@]}"
record roofline 30 bench roofline "${seconds[@]}"
for precision in f32 f16; do
    record "matmul-$precision" 40 bench matmul --sizes "$products" --dtype "$precision" "${seconds[@]}"
done

# The same bits every time? Losses, norms and the tensors of the checkpoint of two runs.
tensors() {
    # Behind the header of a safetensors file, whose length comes first.
    local file header
    file=$(ls "$1"/checkpoints/*.safetensors | tail -1)
    header=$(od -An -tu8 -N8 "$file" | tr -d ' ')
    tail -c "+$((9 + header))" "$file" | sha256sum
}
same_bits() {
    for run in a b; do
        "$bin" train "${@:1}" --out "$work/$run" >"$work/$run.log" 2>&1 || {
            cat "$work/$run.log"
            return 1
        }
        sed 's/"seconds":[^,}]*//' "$work/$run/metrics.jsonl" >"$work/$run.metrics"
        tensors "$work/$run" >"$work/$run.sum"
    done
    tail -1 "$work/a.metrics"
    cat "$work"/?.sum
    cmp "$work/a.metrics" "$work/b.metrics" && cmp "$work/a.sum" "$work/b.sum" && echo "two runs gave the same bits"
}
export -f same_bits tensors
export bin work
part same-bits 60 bash -c 'same_bits "$@"' same_bits "${run[@]}"

# Does f16 train as f32 does? Where the text is there and time is left.
text=${TEXT:-data/tinyshakespeare.txt}
if [[ -e $text || -n $quick ]]; then
    for precision in f32 f16; do
        shakespeare=(--preset shakespeare-char --data "$text" --steps 1000)
        [[ -z $quick ]] || shakespeare=("${model[@]}" --steps 2)
        part "train-$precision" 60 "$bin" train "${shakespeare[@]}" --precision "$precision" --tune off --overwrite --out "$work/train-$precision"
        [[ ! -e $work/train-$precision/metrics.jsonl ]] || cp "$work/train-$precision/metrics.jsonl" "$out/$name-train-$precision.jsonl"
    done
fi
for precision in f32 f16; do
    record "matmul-shapes-$precision" 40 bench matmul --sizes "$shapes" --dtype "$precision" "${seconds[@]}"
done
echo "== all: $SECONDS s; results are in $out/$name-*"
