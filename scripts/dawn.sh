#!/usr/bin/env bash
# The cases of `selftest` on Dawn, Chromium's WebGPU, instead of wgpu: its compiler, its validation, its run time. Each case is
# recorded here, kernels and buffers, and runs there, held against f64 again.
#
#   bash scripts/dawn.sh [FOLDER]
#   VK_DRIVER_FILES=/path/to/driver_icd.json bash scripts/dawn.sh
#   KERNELS=gpu bash scripts/dawn.sh                  # the kernels of GPUs, on a software driver as well
#   RUNNER="COMMAND ARGUMENTS" bash scripts/dawn.sh   # the programs behind a command of one's own
#
# FOLDER (target/dawn by default) keeps the records and the npm package webgpu, downloaded the first time. Exits with 1 where a
# case is wrong, with 2 where Dawn finds no adapter: it wants more of one than this program, and not Mesa's 22.3.6.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
read -ra runner <<<"${RUNNER:-}"
folder=${1:-target/dawn}
rm -rf "$folder/records"
mkdir -p "$folder/records"
folder=$(cd "$folder" && pwd)

if [[ ! -d $folder/node_modules/webgpu ]]; then
    npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts webgpu >"$folder/npm.log" 2>&1 || {
        cat "$folder/npm.log"
        exit 1
    }
fi
read -r _ tests < <(test_programs "${test_build[@]}" --lib)
OUT=$folder/records ${runner[@]+"${runner[@]}"} "$tests" recordings --ignored --nocapture >"$folder/records.log" 2>&1 || {
    cat "$folder/records.log"
    exit 1
}
cp scripts/compilers/dawn.mjs "$folder/"
node=$(readlink -f "$(command -v node)")
${runner[@]+"${runner[@]}"} "$node" "$folder/dawn.mjs" "$folder"/records/*.json
