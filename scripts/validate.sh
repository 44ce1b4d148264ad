#!/usr/bin/env bash
# The GPU tests under the Khronos validation layer, with core and synchronization validation, on the default Vulkan adapter.
# Fails on any message whose id is not in `allowed`, and where the layer is not loaded. Arguments choose the tests:
# `bash scripts/validate.sh --test golden`. Needs the package vulkan-validationlayers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

# Ids that are no defect of ours, each with its reason.
allowed=()

tests=(--test golden --test identities --test training --test ops --test limits)
(($#)) && tests=("$@")
cargo test "${test_build[@]}" --no-run "${tests[@]}"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
export VK_LAYER_ENABLES=VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
export VK_LOADER_DEBUG=layer WGPU_BACKEND=vulkan
status=0
cargo test "${test_build[@]}" "${tests[@]}" -- --nocapture >"$log" 2>&1 || status=$?
grep -E '^test |^test result' "$log" || true

grep -qi 'insert.*layer.*VK_LAYER_KHRONOS_validation' "$log" || {
    echo "the validation layer was not loaded; install vulkan-validationlayers" >&2
    exit 1
}
messages=$(grep -oE 'VUID-[A-Za-z0-9-]+|SYNC-HAZARD-[A-Z_-]+|UNASSIGNED-[A-Za-z0-9_-]+' "$log" | sort | uniq -c || true)
for id in "${allowed[@]}"; do
    messages=$(grep -v -- "$id" <<<"$messages" || true)
done
if [[ -n $messages ]]; then
    printf 'messages of the validation layer:\n%s\n' "$messages" >&2
    exit 1
fi
((status == 0)) || exit "$status"
echo "No messages of the validation layer."
