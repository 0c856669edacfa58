# packages.sh - Debian packages by purpose, and how to install what is missing. Sourced, not run.
#
#   rp_install PACKAGE...   install those that are not there: as root, with sudo, or say what to install

RP_BUILD_PACKAGES="build-essential cmake ninja-build pkg-config openmpi-bin libopenmpi-dev \
libhwloc-dev libopenblas-dev libpng-dev libsentencepiece-dev libcjson-dev libxxhash-dev"
RP_TEST_PACKAGES="libcmocka-dev clang libclang-rt-dev binutils man-db procps python3 gnuplot-nox \
slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge iproute2"

rp_missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            printf '%s ' "$package"
    done
}

rp_install() {
    local missing sudo=
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not a Debian-like system. Install what these Debian packages hold, then run again:" >&2
        echo "  $*" >&2
        return 0
    fi
    missing=$(rp_missing "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null && ! sudo -v; then
            echo "These packages are missing, and you are neither root nor have sudo:" >&2
            echo "  $missing" >&2
            echo "Ask for:  apt-get install --no-install-recommends $missing" >&2
            return 1
        fi
        sudo=sudo
    fi
    echo "installing: $missing"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
