#!/usr/bin/env bash
# Builds what a release has for this machine into a folder: an archive of the program with its manual pages, completions and
# licences, and a wheel: `bash scripts/package.sh dist`. The wheel needs maturin, from pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:?usage: package.sh FOLDER}
mkdir -p "$out"

cargo build --profile dist --locked --features parquet --bin tokenformer
host=$(rustc -vV | sed -n 's/^host: //p')
version=$(cargo pkgid | sed 's/.*[#@]//')
program=target/dist/tokenformer
[[ $host != *windows* ]] || program+=.exe

# maturin looks for it there.
data=tokenformer.data/data
rm -rf tokenformer.data
trap 'rm -rf tokenformer.data' EXIT
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

if command -v maturin >/dev/null; then
    maturin build --out "$out"
elif python3 -m maturin --version >/dev/null 2>&1; then
    python3 -m maturin build --out "$out"
else
    echo "no wheel: maturin is not installed (pip install maturin)" >&2
    exit 1
fi
ls -l "$out"
