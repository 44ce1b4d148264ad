#!/usr/bin/env bash
# Everything that scripts/bench-gpu.sh needs on a machine with a GPU and no compiler, in one folder that git ignores:
# the program, the test programs, and Debian's Vulkan loader with the libraries of libglvnd, which NVIDIA's driver needs. Carry
# the repository with that folder there, and run
#
#   PACK=.gpu bash scripts/bench-gpu.sh NAME
#
# Arguments choose the folder (default .gpu) and the oracle's folder, whose model PyTorch is timed with. TEXT=FILE packs a text
# to train on, such as tinyshakespeare.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
folder=${1:-.gpu}
oracle=${2:-}
most=$((60 << 20)) # bytes; more than this is often not carried

tests=(ops golden identities growing training limits attention cooperative products pruning dropout optimizers)
cargo build --release
rm -rf "$folder"
mkdir -p "$folder/programs/tests"
cp target/release/tokenformer "$folder/programs/"
test_programs --release "${tests[@]/#/--test=}" | while read -r name program; do
    cp "$program" "$folder/programs/tests/$name"
done
for name in "${tests[@]}"; do
    [[ -x $folder/programs/tests/$name ]] || {
        echo "cargo built no program for the test $name" >&2
        exit 1
    }
done
strip "$folder"/programs/tokenformer "$folder"/programs/tests/*
git describe --always --dirty >"$folder/programs/version" 2>/dev/null || echo unknown >"$folder/programs/version"
tar -C "$folder/programs" -czf "$folder/programs.tar.gz" .
rm -r "$folder/programs"

if command -v apt-get >/dev/null; then
    mkdir -p "$folder/loader"
    for package in libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2; do
        (cd "$folder/loader" && apt-get download "$package") ||
            echo "$package could not be downloaded (apt-get update first?): the machine must have its own" >&2
    done
else
    echo "no apt-get here: the machine must have its own Vulkan loader" >&2
fi
if [[ -n $oracle ]]; then
    mkdir -p "$folder/oracle"
    cp "$oracle"/{bench_torch,tokenformer_oracle}.py "$folder/oracle/"
fi
if [[ -n ${TEXT:-} ]]; then
    cp "$TEXT" "$folder/text.txt"
fi

bytes=$(du -sb "$folder" | cut -f1)
echo "$folder: $((bytes / 1000000)) MB"
((bytes <= most)) || {
    echo "$folder has $bytes bytes, at most $most are to be carried" >&2
    exit 1
}
