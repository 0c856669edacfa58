#!/usr/bin/env bash
# headers.sh - every header compiles alone and twice: C11 for all, C++17 too for the public ones. Those of the
# CUDA backend need a CUDA toolkit: without one they are skipped by name.
set -u
cd "$(dirname "$0")/../.." || exit 1
cc=${CC:-gcc}
cxx=${CXX:-g++}
bad=0
warnings="-Wall -Wextra -Werror -Wshadow"

try() { # what header command...
    local what=$1 header=$2
    shift 2
    if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" | "$@" -fsyntax-only -; then
        echo "$header does not stand alone as $what"
        bad=$((bad + 1))
    fi
}

for header in include/rankpool/*.h; do
    name=rankpool/$(basename "$header")
    # shellcheck disable=SC2086
    try "strict C11" "$name" "$cc" -x c -std=c11 -pedantic $warnings -Wstrict-prototypes -Iinclude
    # shellcheck disable=SC2086
    try "C++17" "$name" "$cxx" -x c++ -std=c++17 -pedantic $warnings -Iinclude
done
nvcc=$(tests/cuda_toolkit.sh build-cuda-toolkit 2>/dev/null) || nvcc=""
cuda=""
[ -z "$nvcc" ] || cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")/include
skipped=0
for header in src/*/*.h src/*/*/*.h src/*/*/*.cuh; do
    [ -e "$header" ] || continue
    name=${header#src/}
    case $header in
    src/tensor/cuda/*)
        if [ -z "$nvcc" ]; then
            echo "skipped, no CUDA toolkit: $header"
            skipped=$((skipped + 1))
            continue
        fi ;;
    esac
    case $header in
    *.cuh)
        printf '#include "%s"\n#include "%s"\n' "$name" "$name" |
            "$nvcc" -x cu -std=c++17 -arch=sm_80 -ptx -Iinclude -Isrc -o /dev/null - ||
            { echo "$header does not stand alone as CUDA"; bad=$((bad + 1)); } ;;
    *)
        # shellcheck disable=SC2086
        try C11 "$name" "$cc" -x c -std=c11 -D_GNU_SOURCE $warnings -Wstrict-prototypes -Iinclude -Isrc \
            ${cuda:+-isystem "$cuda"} ;;
    esac
done

[ $bad -eq 0 ] || exit 1
echo "headers: all compile alone, $skipped skipped"
