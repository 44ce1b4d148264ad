#!/usr/bin/env bash
# Everything worth measuring on a GPU, into benches/results/NAME-*.json: first all tests on its driver, then its limits,
# matrix products, whole steps and, where given, PyTorch on the same GPU.
#
#   bash scripts/bench-gpu.sh NAME [ORACLE]
#
# NAME is part of the file names, such as h100-vulkan. ORACLE is the folder of the PyTorch model that
# benches/torch_gpu.py times; without it PyTorch is left out. WGPU_BACKEND and WGPU_ADAPTER_NAME choose the adapter;
# OUT is another folder for the results; SKIP_TESTS=1 leaves the tests out; BIN is a program built elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${1:?give a name for the results, such as h100-vulkan}
oracle=${2:-}
out=${OUT:-benches/results}
bin=${BIN:-target/release/tokenformer}

if [[ -z ${BIN:-} ]]; then
    source scripts/setup.sh
    cargo build --release
fi
mkdir -p "$out"
[[ -n ${SKIP_TESTS:-} ]] || cargo test --release --test ops --test golden --test identities --test training

record() {
    local what=$1
    shift
    echo "== $what: tokenformer $*"
    # A kind of measurement that this adapter cannot do says so and leaves the others alone.
    "$bin" "$@" --out "$out/$name-$what.json" || echo "== $what failed"
}

"$bin" selftest | tail -1
record roofline bench roofline
record matmul-f32 bench matmul --sizes 1024,4096 --dtype f32 --all --peaks
record matmul-f16 bench matmul --sizes 1024,4096 --dtype f16 --all --peaks
record ops bench ops --seconds 0.2
model=(--preset 150m --set model.seq_length=1024 --batch-size 4)
for precision in f32 f16; do
    record "step-150m-$precision" bench step "${model[@]}" --precision "$precision" --tune full --steps 20
    record "step-150m-$precision-recompute" bench step "${model[@]}" --precision "$precision" --recompute --steps 20
done
if [[ -n $oracle ]]; then
    echo "== PyTorch"
    python3 benches/torch_gpu.py --oracle "$oracle" --batch 4 >"$out/$name-torch.json" || echo "== PyTorch failed"
fi
echo "results are in $out/$name-*.json"
