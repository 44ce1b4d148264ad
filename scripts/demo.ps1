# The twin of demo.sh for Windows: trains the built-in default on whatever adapter is there, growing it in the middle of the
# run. Needs Rust with the tools of Visual Studio; DX12 is part of Windows, with a software driver where there is no GPU.
# Arguments are passed on: `powershell -ExecutionPolicy Bypass -File scripts\demo.ps1 --adapter 1`.
$ErrorActionPreference = 'Stop'
Set-Location (Join-Path $PSScriptRoot '..')

if (-not (Get-Command cargo -ErrorAction SilentlyContinue)) {
    throw 'There is no cargo: install Rust from https://rustup.rs, open a new terminal, and start this again.'
}

# A run already there is kept.
$out = 'runs/quickstart'
for ($n = 2; Test-Path $out; $n++) {
    $out = "runs/quickstart-$n"
}

cargo run --release -- train --preset quickstart --out $out @args
exit $LASTEXITCODE
