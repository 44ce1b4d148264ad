#!/usr/bin/env bash
# Builds what a release has for this machine into a folder: an archive of the program with its manual pages, completions and
# licences, and a wheel: `bash scripts/package.sh dist`. Needs maturin, from pip. On Linux the program runs where the C library is
# not older than here, or with ziglang, from pip as well, not older than 2.17, that of CentOS 7.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:?usage: package.sh FOLDER}
mkdir -p "$out"

if command -v maturin >/dev/null; then
    maturin=(maturin)
elif python3 -m maturin --version >/dev/null 2>&1; then
    maturin=(python3 -m maturin)
else
    echo "maturin is not installed (pip install maturin)" >&2
    exit 1
fi
host=$(rustc -vV | sed -n 's/^host: //p')
version=$(cargo pkgid | sed 's/.*[#@]//')
program=target/dist/tokenformer
options=()
if [[ $host == *linux-gnu ]] && python3 -m ziglang version >/dev/null 2>&1; then
    options=(--zig --target "$host" --compatibility manylinux_2_17)
    program=target/$host/dist/tokenformer
fi
[[ $host != *windows* ]] || program+=.exe

# Once for the program, and again with the pages and completions that it writes; maturin looks for those there.
data=tokenformer.data/data
rm -rf tokenformer.data
trap 'rm -rf tokenformer.data' EXIT
"${maturin[@]}" build "${options[@]+"${options[@]}"}" --out target/package
mkdir -p "$data"/share/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
"$program" man "$data/share/man/man1"
"$program" completions bash >"$data/share/bash-completion/completions/tokenformer"
"$program" completions zsh >"$data/share/zsh/site-functions/_tokenformer"
"$program" completions fish >"$data/share/fish/vendor_completions.d/tokenformer.fish"

name=tokenformer-$version-$host
stage=target/package/$name
rm -rf "$stage"
mkdir -p "$stage"
cp "$program" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$stage"
cp -R "$data/share" "$stage/share"
if [[ $host == *windows* ]]; then
    (cd target/package && 7z a -bso0 "$name.zip" "$name")
    mv "target/package/$name.zip" "$out/"
else
    tar -C target/package -czf "$out/$name.tar.gz" "$name"
fi

"${maturin[@]}" build "${options[@]+"${options[@]}"}" --out "$out"
ls -l "$out"
