#!/usr/bin/env bash
# no_driver.sh - a build for GPUs where there is no NVIDIA driver: what it says, once, and that it draws all the same.
# Skipped with 77 where there is one, and for a build that is for CPUs only.
. "$(dirname "$0")/lib.sh"

if ! "$rankpool" list backends | grep -q '^cuda '; then
    echo "no_driver: skipped, $build is not for GPUs"
    exit 77
fi
# /dev/dxg: a driver outside, as in WSL
if [ -e /proc/driver/nvidia ] || [ -e /dev/dxg ] || { ldconfig -p 2>/dev/null || true; } | grep -q 'libcuda\.so\.1'; then
    echo "no_driver: skipped, there is an NVIDIA driver"
    exit 77
fi
why="there is no NVIDIA driver"
small=(--prompt "red heart" --steps 1 --width 64 --height 64 --threads 1)

expect_one_line() { # TEXT... : of ours on stderr; mpirun may add its own
    [ "$(grep -c '^rankpool' stderr)" = 1 ] || fail "not one line of ours on stderr"
    expect_in_stderr "$@"
}

t "on its own it computes on the CPU, after one line"
run "$rankpool" sample "${small[@]}" --backend cpu --out cpu.png
expect_exit 0
expect_silent stderr
run "$rankpool" sample "${small[@]}" --out auto.png
expect_exit 0
expect_lines stderr 1
expect_one_line "not computing on cuda: $why"
expect_same auto.png cpu.png

t "hidden GPUs are not the cause then"
CUDA_VISIBLE_DEVICES=7 run "$rankpool" sample "${small[@]}" --out hidden.png
expect_exit 0
expect_one_line "not computing on cuda: $why"
expect_same hidden.png cpu.png

t "asked for, cuda is refused with that line, and draws nothing"
run "$rankpool" sample "${small[@]}" --backend cuda --out cuda.png
expect_exit 1
expect_silent stdout
expect_lines stderr 1
expect_one_line "error: backend cuda cannot work here: $why"
expect_no_file cuda.png
expect_no_parts

t "two ranks say it once"
if have_mpi; then
    ranks 2 sample "${small[@]}" --out two.png
    expect_exit 0
    expect_one_line "not computing on cuda: $why"
    expect_same two.png cpu.png
else
    skip "no MPI"
fi
finish
