#!/usr/bin/env bash
# cuda_toolkit.sh [--fetch SECONDS] FOLDER - a CUDA toolkit to compile and link with; prints where its nvcc is.
# A relative FOLDER is below the source tree.
#
# The machine's own (launch/cuda.sh) if it is complete, else one in FOLDER. With --fetch, what FOLDER lacks is
# installed there from the toolkit's Python wheels, within so many seconds (0: however long it takes): 1.1 GB
# to download, 1.6 GB on disk, 15 s over a fast line. Compiling needs no GPU and no driver.
#
# Exit: 0 found, 77 none (the cause on standard error).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=../launch/cuda.sh
. launch/cuda.sh

limit='' folder=''
while [ $# -gt 0 ]; do
    case $1 in
    --fetch) limit=${2:?--fetch needs seconds}; shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    -*) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    *) folder=$1 ;;
    esac
    shift
done
[ -n "$folder" ] || { echo "which folder? see $0 --help" >&2; exit 2; }
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac

# One release, pinned: CUDA 13.0 update 2 (nvvm, crt and cccl are parts of nvcc), cuDNN 9.19, NCCL 2.28.
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
    nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-cudnn-cu13==9.19.0.56 nvidia-nccl-cu13==2.28.9)

complete() { [ -z "$(rp_cuda_missing)" ]; }

# Every wheel has its own folder, and libraries only under the names that programs load: one folder
# for all, as nvcc and CMake expect it, with the names that linkers look for.
arrange() { # FOLDER
    local root=$1/nvidia/cu13 library header
    ln -sfn lib "$root/lib64"
    for header in "$1"/nvidia/{cudnn,nccl}/include/*; do
        ln -sf "../../${header#"$1"/nvidia/}" "$root/include/"
    done
    for library in "$1"/nvidia/{cudnn,nccl}/lib/*.so.*; do
        ln -sf "../../${library#"$1"/nvidia/}" "$root/lib/"
    done
    for library in "$root"/lib/*.so.*; do
        ln -sf "$(basename "$library")" "${library%.so.*}.so"
    done
}

fetch() {
    local part=$folder.part log=$folder.log
    rm -rf "$part"
    mkdir -p "$(dirname "$folder")"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "python3 has no pip to fetch it with" >&2
        return 1
    fi
    PIP_ROOT_USER_ACTION=ignore timeout -k 5 "$limit" python3 -m pip install --quiet --no-cache-dir --no-deps --only-binary=:all: --no-compile \
        --retries 1 --timeout 20 --target "$part" "${wheels[@]}" >"$log" 2>&1 || {
        rm -rf "$part"
        echo "fetching it failed or took too long (limit $limit s); see $log" >&2
        return 1
    }
    arrange "$part"
    rm -rf "$folder"
    mv "$part" "$folder" # whole or absent
}

if ! complete; then
    export CUDACXX=$folder/nvidia/cu13/bin/nvcc
    [ -x "$CUDACXX" ] || [ -z "$limit" ] || fetch || exit 77
    complete || { echo "missing: $(rp_cuda_missing)" >&2; exit 77; }
fi
rp_cuda_find
echo "$RP_NVCC"
