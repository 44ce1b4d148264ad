# shellcheck shell=bash
# Sourced by the other scripts: makes sure that Rust is there, and on Linux a C linker, a Vulkan driver
# and an EGL driver. Software drivers will do; drivers already installed are left alone.
#
# Installs what is missing where it can without asking for a password, prints the command where it
# cannot, and goes on either way: the program itself says so when it finds no adapter.
# Leaves in the array setup_missing what could not be installed: any of cc, vulkan, gl and, in CI only, spirv (spirv-val),
# layer (the Vulkan validation layer) and mpi (Open MPI, and libclang for its bindings); and in test_build the arguments of
# cargo for tests, in CI with the feature mpi.

setup_missing=()

# How tests are built. They wait for drivers and kernels, not for this crate, so a build that takes half the time is worth more
# than a fast program. Its dependencies are those of any release build.
test_build=(--release --config profile.release.package.tokenformer.opt-level=1)

# Builds tests, and prints a line NAME PATH for each of their programs: `test_programs --release --test golden`.
test_programs() {
    local path name
    cargo test --no-run --message-format json-render-diagnostics "$@" |
        sed -n 's/.*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1/p' | sed 's|\\\\|/|g' |
        while read -r path; do
            name=${path##*/}
            echo "${name%-*} $path"
        done
}

# True where a file matches one of the patterns.
setup_any_file() {
    local file
    for file in "$@"; do
        [[ -e $file ]] && return 0
    done
    return 1
}

# grep reads to the end (no -q), or a broken pipe would count as "not found" under pipefail.
setup_has_library() {
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -F "$1 " >/dev/null
}

setup_has_vulkan() {
    setup_has_library libvulkan.so.1 || return 1
    [[ -n ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-} ]] && return 0
    setup_any_file {/usr/share,/usr/local/share,/etc,"${HOME:-/root}"/.local/share}/vulkan/icd.d/*.json
}

# EGL from NVIDIA brings its own driver; EGL from Mesa loads one that is packaged apart.
setup_has_gl() {
    setup_has_library libEGL.so.1 || return 1
    setup_any_file {/usr/share,/etc}/glvnd/egl_vendor.d/*nvidia*.json && return 0
    setup_any_file {/usr/share,/etc}/glvnd/egl_vendor.d/*mesa*.json || return 1
    setup_any_file /usr/lib/*/dri/*swrast_dri.so /usr/lib{,64}/dri/*swrast_dri.so \
        /usr/lib/*/libgallium-*.so /usr/lib{,64}/libgallium-*.so
}

setup_has_layer() {
    setup_any_file {/usr/share,/usr/local/share,/etc}/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
}

setup_has_mpi() {
    command -v mpirun >/dev/null && command -v mpicc >/dev/null &&
        setup_any_file /usr/lib{,64}/llvm*/lib/libclang*.so* /usr/lib{,64}/libclang*.so*
}

setup_find_missing() {
    setup_missing=()
    command -v cc >/dev/null || setup_missing+=(cc)
    setup_has_vulkan || setup_missing+=(vulkan)
    setup_has_gl || setup_missing+=(gl)
    # One test holds shaders against the specification with it; elsewhere that test says it did not.
    [[ -z ${CI:-} ]] || command -v spirv-val >/dev/null || setup_missing+=(spirv)
    [[ -z ${CI:-} ]] || setup_has_layer || setup_missing+=(layer)
    [[ -z ${CI:-} ]] || setup_has_mpi || setup_missing+=(mpi)
}

# The packages for one of cc, vulkan, gl, spirv, layer, mpi, as apt or dnf names them.
setup_packages() {
    case $1-$2 in
    apt-cc) echo gcc libc6-dev ;;
    apt-vulkan) echo libvulkan1 mesa-vulkan-drivers ;;
    apt-gl) echo libegl1 libgl1-mesa-dri ;;
    apt-spirv | dnf-spirv) echo spirv-tools ;;
    apt-layer) echo vulkan-validationlayers ;;
    apt-mpi) echo openmpi-bin libopenmpi-dev libclang-dev ;;
    dnf-mpi) echo openmpi openmpi-devel clang-devel ;;
    dnf-layer) echo vulkan-validation-layers ;;
    dnf-cc) echo gcc ;;
    dnf-vulkan) echo vulkan-loader mesa-vulkan-drivers ;;
    dnf-gl) echo libglvnd-egl mesa-libEGL mesa-dri-drivers ;;
    esac
}

# Runs the rest as root, if that takes no password.
setup_as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

setup_can_be_root() {
    [[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null
}

setup_install() {
    local manager=$1 what packages=()
    for what in "${setup_missing[@]}"; do
        # shellcheck disable=SC2207 # package names hold no spaces
        packages+=($(setup_packages "$manager" "$what"))
    done
    if ! setup_can_be_root; then
        local install="sudo dnf install -y"
        [[ $manager == apt ]] && install="sudo apt-get update && sudo apt-get install -y --no-install-recommends"
        echo "Missing: ${setup_missing[*]}. To install: $install ${packages[*]}"
        return
    fi
    echo "Installing ${packages[*]}"
    if [[ $manager == apt ]]; then
        # A machine that has just started may still be installing its own updates: wait for the lock.
        local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
        setup_as_root "${apt[@]}" update &&
            setup_as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
    else
        setup_as_root dnf install -y -q "${packages[@]}" >/dev/null
    fi || echo "That failed; going on without."
}

setup_linux() {
    setup_find_missing
    ((${#setup_missing[@]})) || return 0
    if command -v apt-get >/dev/null; then
        setup_install apt
    elif command -v dnf >/dev/null; then
        setup_install dnf
    else
        echo "Missing: ${setup_missing[*]}. Install a C compiler, and Mesa's Vulkan and EGL drivers."
    fi
    setup_find_missing
}

# Mesa complains at every start where this folder does not exist.
setup_runtime_dir() {
    [[ -d ${XDG_RUNTIME_DIR:-} ]] && return
    local folder
    folder=${TMPDIR:-/tmp}/runtime-$(id -u)
    mkdir -m 700 "$folder" 2>/dev/null || true
    # Somebody else's folder of that name, or a link to one, is not private.
    if [[ ! -d $folder || -L $folder || ! -O $folder ]]; then
        folder=$(mktemp -d)
    fi
    export XDG_RUNTIME_DIR=$folder
}

if ! command -v cargo >/dev/null && [[ -f ${HOME:-/root}/.cargo/env ]]; then
    # Installed, but not yet in the PATH of this shell.
    # shellcheck disable=SC1091
    source "${HOME:-/root}/.cargo/env"
fi
if ! command -v cargo >/dev/null; then
    echo "Rust is not installed: install it with rustup, then run this again." >&2
    exit 1
fi

if [[ $(uname -s) == Linux ]]; then
    setup_linux
    setup_runtime_dir
    [[ -z ${CI:-} || " ${setup_missing[*]-} " == *" mpi "* ]] || test_build+=(--features mpi)
fi
