#!/usr/bin/env bash
# quickstart.sh - from a clean clone to a picture: install packages, build, draw a red heart on two ranks.
#
# Where a GPU answers and CUDA is there to build with, it builds for that GPU, and draws with one rank for
# each of (at most) two GPUs. Environment:
#
#   RANKPOOL_CUDA   auto (default) as said; on: build for GPUs, or fail; off: build for the CPU
#   RANKPOOL_BUILD  build folder within this one, where the program finds its model (default build)
set -euo pipefail
case ${1:-} in
"") ;;
-h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
*) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
# shellcheck source=launch/packages.sh
. launch/packages.sh
# shellcheck source=launch/cuda.sh
. launch/cuda.sh

# shellcheck disable=SC2086
rp_install $RP_BUILD_PACKAGES

# ---- for which device: cmake's options, and how many ranks can draw
options=() ranks=2
build_for_gpus() { # ARCHITECTURES, or nothing for CMakeLists.txt's own choice
    options=(-DRP_CUDA=ON)
    [ -z "$RP_NVCC" ] || options+=("-DCMAKE_CUDA_COMPILER=$RP_NVCC")
    [ -z "$1" ] || options+=("-DCMAKE_CUDA_ARCHITECTURES=$1")
    if [ "$n_gpus" -eq 1 ]; then
        ranks=1 # two ranks on one GPU take turns; the program refuses that unless it is asked for
    fi
}

n_gpus=$(rp_gpu_count)
case ${RANKPOOL_CUDA:-auto} in
off) options=(-DRP_CUDA=OFF) ;;
on)
    rp_cuda_find || true # cmake then says what is missing
    [ -z "$RP_NVCC" ] || architectures=$(rp_gpu_architectures)
    build_for_gpus "${architectures:-}"
    ;;
auto)
    if [ "$n_gpus" -gt 0 ]; then
        missing=$(rp_cuda_missing) architectures=
        if [ -z "$missing" ]; then
            rp_cuda_find
            architectures=$(rp_gpu_architectures)
            [ -n "$architectures" ] || missing="a CUDA toolkit that knows this GPU ($RP_NVCC does not)"
        fi
        if [ -z "$missing" ]; then
            build_for_gpus "$architectures"
            echo "building for $n_gpus GPU(s): $architectures"
        else
            options=(-DRP_CUDA=OFF)
            echo "a GPU answers, but this build is for the CPU; to use the GPU install $missing"
        fi
    fi
    ;;
*) echo "RANKPOOL_CUDA=$RANKPOOL_CUDA: on, off or auto" >&2; exit 2 ;;
esac

build=${RANKPOOL_BUILD:-build}
cmake -S . -B "$build" -G Ninja -Wno-dev "${options[@]}" >"$build.log" 2>&1 ||
    { cat "$build.log"; echo "configuring failed; the lines above say why" >&2; exit 1; }
cmake --build "$build" >>"$build.log" 2>&1 ||
    { tail -n 40 "$build.log"; echo "building failed; the whole log is in $build.log" >&2; exit 1; }

# Open MPI refuses root without these two; more ranks than cores without the third.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1

mpirun -n "$ranks" "$build/bin/rankpool" sample --prompt "red heart" --out heart.png --overwrite

cat <<TEXT

The picture is $PWD/heart.png

Try next:
  $build/bin/rankpool sample --prompt "a picture of a rocket" --out rocket.png
  mpirun -n $ranks $build/bin/rankpool sample --prompt "three penguins" --images 4 --out penguin.png
  $build/bin/rankpool sample --help
  $build/bin/rankpool sample --model /path/to/Lumina-Image-2.0 --prompt "..."   # a diffusers folder
TEXT
if [ "$(id -u)" -eq 0 ]; then
    echo "(mpirun as root needs: export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)"
fi
