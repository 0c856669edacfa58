# rows_sanitizer.sh - rows of compute-sanitizer: memory, first uses and races of a picture, and of the programs that
# test kernels. Sourced by rows.sh.
#
# shellcheck shell=bash disable=SC2154

race_options=() beside_theirs=no
sanitize() { # TOOL COMMAND...
    local tool=$1 code=0
    shift
    command -v compute-sanitizer >/dev/null || skip "no compute-sanitizer"
    local options=()
    [ "$tool" != memcheck ] || options=(--report-api-errors no) # a refused allocation is what a test asks for
    [ "$tool" != racecheck ] || options=("${race_options[@]}")
    go compute-sanitizer --tool "$tool" "${options[@]}" --error-exitcode 9 --target-processes all "$@" >sanitizer.log 2>&1 ||
        code=$?
    cat sanitizer.log
    ! grep -q 'Device not supported' sanitizer.log || skip "compute-sanitizer refuses this device"
    [ $beside_theirs = no ] || ! only_theirs "$code" || { say "0 errors but $(hazards) in cuBLASLt"; return 0; }
    say "$(grep -oE '(ERROR|RACECHECK) SUMMARY: .*' sanitizer.log | tail -1 | sed 's/.*SUMMARY: //')"
    return $code
}

# cuBLASLt's kernels (nvjet) have barriers that racecheck does not understand; without them it ends with an error of
# its own. So their hazards are reported, and do not count where nothing else is wrong.
hazards() { grep -c 'Race reported' sanitizer.log; }
only_theirs() { # EXIT-CODE
    [ "$1" -eq 9 ] && [ "$(hazards)" -gt 0 ] &&
        ! grep -E 'Race reported| access at ' sanitizer.log | grep -qvE ' access at nvjet_' &&
        ! grep -qE 'returned an error|Internal Sanitizer Error' sanitizer.log
}

race_beside_theirs() { # PROGRAM
    beside_theirs=yes
    sanitize racecheck "$1"
}

sanitized() { # TOOL PRECISION : the whole way from a prompt to a picture
    [ "$2" != fp8 ] || fp8_or_skip
    sanitize "$1" "$rankpool" "${short[@]}" --backend cuda --precision "$2" --out sanitized.png
}

race() { # PRECISION
    local name
    race_options=()
    if [ "$1" != f32 ]; then # the hand-made barriers of libraries are not understood
        for name in cudnn cutlass xmma; do race_options+=(--kernel-name-exclude "kernel_substring=$name"); done
        export LD_PRELOAD=$build/lib/no_conv_graphs.so
    fi
    sanitized racecheck "$1"
}

# NAME:PROGRAM, of kernels that share memory within a block or write beside an array's end if wrong
hopper_kernels=("own attention:flash" "own attention in e4m3:flash8" "products of blocks:blocks" "feed-forward fp8:down")
beside_cublaslt=("gated pair:gated" "gated products fp8:gated_fp8" "norms that feed products:feeds")
other_kernels=("ops latent:latent" "ops matrix:matrix" "ops image:image" "ops backend:backend" "ops record:record"
    "ops fp8:fp8" "norms that feed gated pairs:feeds_gated" "attention fp8:fp8_attention" "own attention fp8:flash_fp8")

sanitizer_rows() {
    local tool p pair
    for tool in memcheck initcheck; do
        for p in f32 bf16 fp8; do row "$tool of a picture, $p" sanitized $tool $p; done
    done
    for p in f32 bf16 fp8; do row "racecheck of a picture, $p" race $p; done
    for pair in "ops ops:ops" "${hopper_kernels[@]}"; do
        row "racecheck of ${pair%:*}" sanitize racecheck "$build/bin/test_cuda_${pair#*:}"
    done
    for pair in "${beside_cublaslt[@]}"; do
        row "racecheck of ${pair%:*}" race_beside_theirs "$build/bin/test_cuda_${pair#*:}"
    done
    for pair in "ops ops:ops" "${other_kernels[@]}" "${hopper_kernels[@]}" "${beside_cublaslt[@]}"; do
        row "memcheck of ${pair%:*}" sanitize memcheck "$build/bin/test_cuda_${pair#*:}"
    done
}
