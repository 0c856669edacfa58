#!/usr/bin/env bash
# predict.sh - predictions for other numbers of ranks: from numbers, from a report, what is refused.
. "$(dirname "$0")/lib.sh"

t "one image with plain guidance: two units, no use for more ranks"
run "$rankpool" predict --unit-ms 40 --ranks 1,2,1024
expect_exit 0
expect_silent stderr
expect_in_stdout "Predicted, not measured" "Base: one rank, 80.00 ms a step (12.50 it/s)" "at most 2 ranks can be busy" \
    "| 1 | 1 | 2 | 80.00 | 12.50 | 1.00 | 100.0 % | - |" "| 2 | 2 | 1 | 40.00 | 25.00 | 2.00 | 100.0 % | - |" \
    "| 1024 | 2 | 1 | 40.00 | 25.00 | 2.00 | 0.2 % | units, 100 % |"

t "what limits: network, latency, cores, uneven units, rank 0"
run "$rankpool" predict --unit-ms 10 --images 64 --ranks 128 --gbit 1
expect_in_stdout "network, 9"
run "$rankpool" predict --unit-ms 1 --ranks 2 --latency-us 500 --width 128 --height 128
expect_in_stdout "latency, 50 %"
run "$rankpool" predict --unit-ms 10 --images 2 --ranks 4 --cores 2
expect_in_stdout "| 4 | 4 | 1 | 20.00 | 50.00 | 2.00 | 50.0 % | cores, 50 % |"
run "$rankpool" predict --unit-ms 15,10 --ranks 2
expect_in_stdout "| 2 | 2 | 1 | 15.00 | 66.67 | 1.67 | 83.3 % | uneven, 17 % |"
run "$rankpool" predict --unit-ms 10 --root-ms 30 --ranks 2 --waves 2
expect_in_stdout "| 2 | 2 | 1 | 50.00 | 20.00 | 1.40 | 70.0 % | root, 30 % |"
run "$rankpool" predict --unit-ms 10 --units 1 --ranks 1
expect_in_stdout "1 image with 1 unit: at most 1 rank can be busy."

t "decoding: each rank its share of the pictures"
run "$rankpool" predict --unit-ms 39 --images 8 --decode-ms 27 --ranks 1,3,8
expect_exit 0
expect_in_stdout ", decoding 27 ms a picture." "| efficiency | decode ms | limit |" "| 100.0 % | 216.00 | - |" \
    "| 3 | 3 | 6 |" "| 81.00 |" "| 100.0 % | 27.00 | - |"

t "from a report: images, sizes and times are those of the job; options win"
run "$rankpool" sample "${tiny[@]}" --steps 6 --images 3 --prompt sun --out sun.png --report sun.json
expect_exit 0
run "$rankpool" predict --from sun.json --ranks 1,6,7
expect_exit 0
expect_in_stdout "3 images of 2 units (" ", 1 wave a step" "1 KiB of latents" "| 6 | 6 | 1 |" "| 7 | 6 | 1 |"
run "$rankpool" predict --from sun.json --ranks 2 --images 1 --unit-ms 7 --root-ms 1
expect_in_stdout "1 image of 2 units (7, 7 ms each), 1 wave a step, rank 0 alone 1 ms" "| 2 | 2 | 1 | 8.00 |"
run "$rankpool" sample "${tiny[@]}" --steps 4 --sampler heun --guidance 1 --out heun.png --report heun.json
run "$rankpool" predict --from heun.json --ranks 1
expect_in_stdout "1 image of 1 unit (" "1.75 waves a step"
if command -v python3 >/dev/null; then
    run "$rankpool" predict --from sun.json --ranks 1,2 --json
    expect_exit 0
    cp stdout sun.predicted
    run python3 -c 'import json; j = json.load(open("sun.json")); p = json.load(open("sun.predicted"))
assert j["latents"] == [16, 4, 4] and len(j["unit_costs"]) == 2 and p["bytes"] == 4 * 16 * 4 * 4 and p["images"] == 3
assert abs(p["decode_ms"] - 1e3 * j["decode_seconds"] / 3) < 1e-2 * p["decode_ms"]
one, two = p["predictions"]
assert abs(one["decode_ms"] / p["decode_ms"] - 3) < 1e-4 and abs(two["decode_ms"] / p["decode_ms"] - 2) < 1e-4
assert abs(one["step_ms"] / max(j["step_ms"], 6 * j["unit_ms"]) - 1) < 1e-4 and one["step_ms"] == p["base_step_ms"]
assert abs(sum(p["unit_ms"]) / 2 / j["unit_ms"] - 1) < 1e-2 and 1 < two["speedup"] <= 2 and one["limit"] == "none"
assert set(two["lost_ms"]) == {"units", "uneven", "cores", "network", "latency", "root"}'
    expect_exit 0
fi

t "reports that cannot be read, are none, or have unequal steps"
run "$rankpool" predict --from missing.json
expect_exit 1
expect_in_stderr "cannot read missing.json: No such file"
echo '{' >none.json
run "$rankpool" predict --from none.json
expect_exit 1
expect_in_stderr "none.json is not JSON"
echo '{"settings": {"images": 1}, "unit_costs": [1, 1]}' >none.json
run "$rankpool" predict --from none.json
expect_exit 1
expect_in_stderr "none.json is no report"
for what in '"ranks"' '"unit_ms"' '"decode_seconds"' '"step_seconds"' '"unit_costs"' '"latents"'; do
    sed "s/$what/\"other\"/" sun.json >none.json
    run "$rankpool" predict --from none.json
    expect_exit 1
    expect_in_stderr none.json
    expect_lines stderr 1
done
tr -d '[:space:]' <sun.json | sed -E 's/"unit_costs":\[[^,]*,/"unit_costs":[-1,/' >negative.json
run "$rankpool" predict --from negative.json
expect_exit 1
expect_in_stderr "negative.json: times are missing"
sed 's/"guidance-truncation":[^,]*,/"guidance-truncation": 0.5,/' sun.json >half.json
run "$rankpool" predict --from half.json
expect_exit 1
expect_in_stderr "half.json: a job with guidance-truncation below 1"

t "wrong values"
for wrong in --ranks=0 --ranks=1,,2 --ranks=1.5 --ranks=4097 --unit-ms=0 --unit-ms=x --unit-ms=nan --images=0 --images=1.5 \
    --units=9 --decode-ms=-1 --gbit=-1 --latency-us= --cores=x --width=4; do
    run "$rankpool" predict --unit-ms 1 $wrong
    expect_exit 2
    expect_in_stderr "${wrong%%=*}"
    expect_lines stderr 1
done
run "$rankpool" predict
expect_exit 2
expect_in_stderr "--unit-ms is needed"
run "$rankpool" predict --unit-ms 1,2,3 --units 2
expect_exit 2
expect_in_stderr "as often as --units says"
run "$rankpool" predict --from sun.json --units 3
expect_exit 2
expect_in_stderr "--unit-ms is needed"

t "under mpirun it is printed once"
if have_mpi; then
    ranks 2 predict --unit-ms 1 --ranks 2
    expect_exit 0
    [ "$(grep -c '^Base:' stdout)" = 1 ] || fail "printed more than once"
else
    skip "no MPI"
fi
finish
