#!/usr/bin/env bash
# gpu_scale.sh - tests/gpu/scale.sh where there is no GPU, and the table that it makes of its numbers.
. "$(dirname "$0")/lib.sh"
scale=$root/tests/gpu/scale.sh

expect_sound "$scale"

t "help, sections, and what is wrong on the command line"
run "$scale" --help
expect_exit 0
expect_in_stdout "--total SECONDS" "--try" "77 nothing could run"
run "$scale" --list --only 'image|death'
expect_exit 0
[ "$(xargs <stdout)" = "image images death" ] || fail "not these sections"
run "$scale" --size
expect_exit 1
run "$scale" --sizes 4
expect_exit 2
expect_lines stderr 1

t "without a GPU it says so and leaves nothing"
mkdir bin
printf '#!/bin/sh\nexit 9\n' >bin/nvidia-smi
chmod +x bin/nvidia-smi
run env PATH="$work/bin:$PATH" "$scale" --build "$build" --out none
expect_exit 77
expect_in_stdout "no GPU"
expect_no_file none

if ! command -v python3 >/dev/null; then
    skip "needs python3"
    finish
fi

# report SECTION PRECISION RANKS IMAGES STEPS-PER-SECOND WIRE-SECONDS: as scale.sh keeps it of `rankpool bench`
report() {
    local rank="{\"busy_seconds\": 1, \"idle_seconds\": 0, \"wire_seconds\": $6}" ranks
    local load='"mhz": [1650], "watts": [698]'
    ranks=$rank
    [ "$3" = 1 ] || ranks="$rank, $rank" load='"mhz": [1620, 1635], "watts": [699, 697]'
    echo "{\"section\": \"$1\", \"precision\": \"$2\", \"n_ranks\": $3, $load, \"images\": $4, \"steps\": 30, \"open_seconds\": 2," \
        "\"runs\": [{\"residency\": \"run\", \"jobs\": 2, \"images_per_second\": $(awk "BEGIN { print $5 / 30 }")," \
        "\"unit_ms\": 40, \"steps_per_second\": {\"median\": $5}, \"job_seconds\": {\"median\": 3}}], \"ranks\": [$ranks]}"
}
{
    echo 'a line of a library'
    echo '{"section": "machine", "name": "H100", "driver": "1", "power": "700 W", "gpus": 2, "link": "NV18",' \
        '"date": "2026-11-25", "try": false, "version": "rankpool 1", "command": "scale.sh"}'
    echo '{"section": "wire", "way": "nccl", "ranks": 2, "mib": 0.5, "p50_us": 61.4, "p99_us": 80, "same": true}'
    echo '{"section": "wire", "way": "plain", "ranks": 2, "mib": 0.5, "p50_us": 40, "p99_us": 50, "same": false}'
    report image bf16 1 1 12 0
    report image bf16 2 1 23.76 0.005
    report image fp8 1 1 16 0
    report image fp8 2 1 30.4 0.05
    report images bf16 1 1 12 0
    report images bf16 2 2 24 0.005
    echo '{"section": "same", "precision": "bf16", "n_ranks": 2, "images": 1, "steps": 30, "files": 2, "bytes": 3e6, "same": true}'
    echo '{"section": "same", "precision": "fp8", "n_ranks": 2, "images": 1, "steps": 30, "files": 2, "bytes": 3e6, "same": false}'
    echo '{"section": "peer", "torch": "2", "diffusers": "0.42", "size": 1024, "tokens": 128}'
    echo '{"section": "peer", "peer": "compile", "way": "one GPU", "its": 10, "min_its": 9, "max_its": 11, "first_s": 60, "difference": 0}'
    echo '{"section": "peer", "peer": "compile", "way": "threads that stay", "its": 19, "min_its": 18, "max_its": 20, "host_ms": 49.2,' \
        '"first_s": 1, "difference": 0.001}'
    echo '{"section": "death", "n_ranks": 2, "victim": 1, "seconds": 1.5, "code": 137, "left": 0, "message": "rank 1 has gone"}'
    echo '{"section": "run", "name": "start", "result": "FAIL", "seconds": 7}'
} >results.jsonl

t "the table: what was reached and what was missed, and by how much"
run python3 "$root/tests/gpu/scale_table.py" results.jsonl --svg images.svg
expect_exit 0
expect_silent stderr
expect_in_stdout "2 x H100, 700 W, driver 1, link NV18; rankpool 1, 2026-11-25" \
    "| two ranks over one, one image, bf16 | >= 1.97 x | 1.980 x | reached |" \
    "| two ranks over one, one image, fp8 | >= 1.97 x | 1.900 x | missed by 0.070 |" \
    "| the pool's share of a step on NVLink, bf16 | < 0.5 % | 0.198 % | reached |" \
    "| the pool's share of a step on NVLink, fp8 | < 0.5 % | 2.533 % | missed by 2.033 points |" \
    "| the same bytes from any number of ranks | all | 1 of 2 | missed by 1 |" \
    "| all ranks gone after one was killed | < 5 s | 1.50 s | reached |" \
    "| 2 | 0.5 | 61 / 80 | 40 / 50 WRONG BYTES |" "| bf16 | 2 | 2 | 0.800 | 2.000 | 100.0 % | 24.00 | 40.00 | 1620 / 1635 | 699 / 697 | 3.000 |" \
    "| compile | threads that stay | 19.00 | 18.00..20.00 | 1.90 x | 49.2 | 1.0e-03 | 1.0 |" "| start | FAIL | 7 |"
if command -v gnuplot >/dev/null; then
    expect_file images.svg
    grep -qF "bf16, ideal" images.svg || fail "no plot of bf16"
else
    expect_in_stdout "gnuplot is not installed"
fi

t "no NVLink, nothing measured: nothing is claimed"
sed -n '2{s/NV18/PHB/;p};/"image"/p' results.jsonl >pcie.jsonl
run python3 "$root/tests/gpu/scale_table.py" pcie.jsonl
expect_exit 0
expect_in_stdout "| 0.198 % | does not count: PHB |"
: >empty.jsonl
run python3 "$root/tests/gpu/scale_table.py" empty.jsonl
expect_exit 0
expect_silent stdout
finish
