# cuda.sh - which GPUs answer, and what a build for them has and lacks. Sourced, not run.
#
#   rp_gpu_count         how many GPUs answer and are not hidden by CUDA_VISIBLE_DEVICES
#   rp_cuda_find         RP_NVCC: the first new enough nvcc of CUDACXX, PATH and /usr/local/cuda
#   rp_cuda_missing      what a build for GPUs lacks, in words; nothing when all is there
#   rp_gpu_architectures the architectures of the GPUs that answer, as CMake wants them: "90a-real;120-real"
#
# shellcheck shell=bash

RP_CUDA_OLDEST=12.9 # as in CMakeLists.txt
RP_CUDA_SYSTEM= # folder that holds usr; a test puts another one here
RP_NVCC=

rp_gpu_count() {
    local n=0 visible
    if command -v nvidia-smi >/dev/null; then
        n=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)
    fi
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        visible=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c . || true)
        [ "$visible" -ge "$n" ] || n=$visible
    fi
    echo "$n"
}

rp_nvcc_version() { "$1" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p'; }

rp_cuda_new_enough() { # VERSION
    [ -n "$1" ] && [ "$(printf '%s\n' "$RP_CUDA_OLDEST" "$1" | sort -V | head -1)" = "$RP_CUDA_OLDEST" ]
}

rp_cuda_find() {
    local nvcc
    for nvcc in "${CUDACXX:-}" "$(command -v nvcc || true)" "$RP_CUDA_SYSTEM/usr/local/cuda/bin/nvcc"; do
        if [ -n "$nvcc" ] && [ -x "$nvcc" ] && rp_cuda_new_enough "$(rp_nvcc_version "$nvcc")"; then
            RP_NVCC=$nvcc
            return 0
        fi
    done
    return 1
}

rp_cuda_root() { dirname "$(dirname "$(readlink -f "$RP_NVCC")")"; }

# Where CMake looks too: beside the toolkit's, then in the system's folders.
rp_cuda_has() { # HEADER LIBRARY
    local root file header='' library='' usr=$RP_CUDA_SYSTEM/usr
    root=$(rp_cuda_root)
    for file in "$root"/include/"$1" "$root"/targets/*/include/"$1" "$usr"/local/include/"$1" \
        "$usr"/include/"$1" "$usr"/include/*-linux-gnu/"$1"; do
        [ ! -e "$file" ] || header=$file
    done
    for file in "$root"/lib{64,}/"$2" "$root"/targets/*/lib/"$2" "$usr"/local/lib/"$2" \
        "$usr"/lib/*-linux-gnu/"$2" "$usr"/lib{64,}/"$2"; do
        [ ! -e "$file" ] || library=$file
    done
    [ -n "$header" ] && [ -n "$library" ]
}

rp_cuda_missing() {
    local lacks=()
    if ! rp_cuda_find; then
        echo "the CUDA toolkit, $RP_CUDA_OLDEST or newer (nvcc in PATH, CUDACXX or /usr/local/cuda), with cuDNN 9 and NCCL"
        return 0
    fi
    rp_cuda_has cublasLt.h libcublasLt.so || lacks+=("cuBLAS")
    rp_cuda_has cudnn.h libcudnn_graph.so || lacks+=("cuDNN 9")
    rp_cuda_has nccl.h libnccl.so || lacks+=("NCCL 2.18 or newer")
    [ ${#lacks[@]} -eq 0 ] || { printf '%s, ' "${lacks[@]}" | sed 's/, $//'; echo " (headers and libraries)"; }
}

# Those that RP_NVCC can build for; nothing where it knows none of them. 9.0 with the instructions that no later one has.
rp_gpu_architectures() {
    local cap known
    known=$("$RP_NVCC" --list-gpu-code)
    { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null || true; } | tr -d ' .' | sort -un |
        while read -r cap; do
            ! grep -qx "sm_$cap" <<<"$known" || printf '%s\n' "${cap/#90/90a}-real"
        done | paste -sd ';' -
}
