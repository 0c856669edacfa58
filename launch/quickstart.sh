#!/usr/bin/env bash
# quickstart.sh - from a clean clone to a picture: install packages, build, draw a red heart on two ranks.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/packages.sh
. launch/packages.sh

# shellcheck disable=SC2086
rp_install $RP_BUILD_PACKAGES

build=${RANKPOOL_BUILD:-build}
cmake -S . -B "$build" -G Ninja -Wno-dev >"$build.log" 2>&1 ||
    { cat "$build.log"; echo "configuring failed; the lines above say why" >&2; exit 1; }
cmake --build "$build" >>"$build.log" 2>&1 ||
    { tail -n 40 "$build.log"; echo "building failed; the whole log is in $build.log" >&2; exit 1; }

# Open MPI refuses root without these two; more ranks than cores without the third.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1

mpirun -n 2 "$build/bin/rankpool" sample --prompt "red heart" --out heart.png --overwrite

cat <<TEXT

The picture is $PWD/heart.png

Try next:
  $build/bin/rankpool sample --prompt "a picture of a rocket" --out rocket.png
  mpirun -n 2 $build/bin/rankpool sample --prompt "three penguins" --images 4 --out penguin.png
  $build/bin/rankpool sample --help
  $build/bin/rankpool sample --model /path/to/Lumina-Image-2.0 --prompt "..."   # a diffusers folder
TEXT
if [ "$(id -u)" -eq 0 ]; then
    echo "(mpirun as root needs: export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)"
fi
