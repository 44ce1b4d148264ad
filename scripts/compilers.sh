#!/usr/bin/env bash
# Every kernel through compilers that are not part of this program: spirv-val for what Vulkan drivers are given, DXC for what
# DX12 is given, Tint for the WGSL itself. MSL is only written: there is no compiler for it outside of macOS.
#
#   bash scripts/compilers.sh [FOLDER]
#
# FOLDER (target/compilers by default) keeps the tools and the texts. The tools are downloaded the first time, some 90 MB,
# through pip and npm: DXC is in the Python package compushady, Tint in the npm package webgpu; spirv-val is in Debian's
# spirv-tools. A tool that cannot be had is named at the end, and the exit status is then 2; 1 means that a kernel was refused.
# DXC takes about a second for a matrix product, so that all of it takes more than the two minutes that CI could give.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source scripts/setup.sh
folder=${1:-target/compilers}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
texts=$folder/texts
missing=() refused=()
cores=$(nproc 2>/dev/null || echo 2)

not_checked() {
    echo "== $1: NOT CHECKED, $2" >&2
    missing+=("$1")
}

echo "== texts"
rm -rf "$texts"
OUT=$texts cargo test "${test_build[@]}" --test shaders dump -- --ignored --quiet >"$folder/dump.log" 2>&1 || {
    cat "$folder/dump.log"
    exit 1
}
count() { find "$texts" -name "*.$1" | wc -l; }
echo "$(count wgsl) shaders: $(count spv) SPIR-V modules, $(count metal) MSL, $(count hlsl) HLSL"
(($(count wgsl) > 100)) || exit 1

# Runs a compiler over all files of a kind, on every core; leaves what it says in NAME.log.
over() {
    local name=$1 kind=$2
    shift 2
    echo "== $name"
    find "$texts" -name "*.$kind" | sort | xargs -P "$cores" -n 40 "$@" >"$folder/$name.log" 2>&1
}

# spirv-tools before 2023.4 do not know cooperative matrices, and before 2024 not all that f16 needs.
spirv_val() {
    local file said status=0
    for file in "$@"; do
        said=$(spirv-val --target-env vulkan1.3 "$file" 2>&1) && continue
        [[ $said == *"Invalid capability operand: 6022"* ]] && continue
        # Every workgroup array that naga writes has a stride, which newer versions complain of.
        [[ $said == *VUID-StandaloneSpirv-None-10684* ]] && continue
        echo "$file: $said"
        status=1
    done
    return $status
}
export -f spirv_val
if command -v spirv-val >/dev/null; then
    over spirv-val spv bash -c 'spirv_val "$@"' spirv_val || refused+=(spirv-val)
else
    not_checked spirv-val "install spirv-tools"
fi

dxc_ready() {
    [[ -x $folder/dxc/dxc ]] && return 0
    local include
    mkdir -p "$folder/dxc"
    (
        cd "$folder/dxc" || exit 1
        python3 -m pip download --quiet --no-deps --no-binary compushady compushady || exit 1
        tar -xzf compushady-*.tar.gz --strip-components=3 --wildcards '*/backends/WinAdapter.h' '*/backends/dxcapi.h' \
            '*/backends/libdxcompiler_x86_64.so*' || exit 1
        rm compushady-*.tar.gz
        mv libdxcompiler_x86_64.so.* libdxcompiler.so || exit 1
    ) >"$folder/dxc/download.log" 2>&1 || return 1
    include=$PWD/scripts/compilers/dxc.cpp
    # The library is looked for beside the program, by the name it was built with.
    (
        cd "$folder/dxc" || exit 1
        soname=$(objdump -p libdxcompiler.so | sed -n 's/^ *SONAME *//p')
        [[ -z $soname || $soname == libdxcompiler.so ]] || ln -sf libdxcompiler.so "$soname"
        g++ -O1 -w -I. "$include" -o dxc -L. -ldxcompiler -Wl,-rpath,'$ORIGIN'
    ) >"$folder/dxc/build.log" 2>&1
}
if [[ $(uname -sm) != "Linux x86_64" ]]; then
    not_checked dxc "this script finds it for Linux on x86_64 only"
elif ! command -v g++ >/dev/null || ! command -v objdump >/dev/null; then
    not_checked dxc "install g++ and binutils"
elif dxc_ready; then
    over dxc hlsl "$folder/dxc/dxc" || refused+=(dxc)
else
    not_checked dxc "pip could not bring compushady, or its compiler's library did not link: see $folder/dxc/*.log"
fi

tint_ready() {
    [[ -d $folder/tint/node_modules/webgpu ]] && return 0
    mkdir -p "$folder/tint"
    (cd "$folder/tint" && npm install --no-audit --no-fund --ignore-scripts webgpu) >"$folder/tint.download.log" 2>&1
}
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    not_checked tint "install node and npm"
elif tint_ready; then
    cp scripts/compilers/tint.mjs "$folder/tint/"
    echo "== tint"
    # Its WGSL has no matrix units.
    grep -L 'enable wgpu_cooperative_matrix;' "$texts"/*.wgsl | xargs node "$folder/tint/tint.mjs" >"$folder/tint.log" 2>&1
    case $? in
    0) ;;
    1 | 123) refused+=(tint) ;;
    *) not_checked tint "Dawn does not run here: see $folder/tint.log" ;;
    esac
    tail -1 "$folder/tint.log"
else
    not_checked tint "npm could not bring webgpu: see $folder/tint.download.log"
fi

for name in "${refused[@]}"; do
    echo "== refused by $name:"
    head -c 4000 "$folder/$name.log"
done
((${#refused[@]} == 0)) || exit 1
if ((${#missing[@]})); then
    echo "not checked by: ${missing[*]}"
    exit 2
fi
echo "Every kernel was accepted, in $SECONDS s."
