#!/usr/bin/env bash
# bench.sh - measurements: what is printed and written, and that nothing else is.
. "$(dirname "$0")/lib.sh"
quick=(--width 32 --height 32 --threads 1 --steps 2)

t "medians and ranks are printed, and no picture is written"
run "$rankpool" bench "${quick[@]}" --repeat 3 --json numbers.json
expect_exit 0
expect_silent stderr
expect_in_stdout "\"red heart\", 32x32, 2 steps" "1 warm-up, 3 timed" "it/s" "start-up" "rank   busy   idle   wire"
grep -qE '^ +0 +[0-9.]+% +[0-9.]+% +[0-9.]+% +12$' stdout || fail "rank 0 should have 2 units x 2 steps x 3 jobs"
[ -z "$(ls -- *.png 2>/dev/null)" ] || fail "a picture was written"
if command -v python3 >/dev/null; then
    run python3 -c 'import json; n = json.load(open("numbers.json")); r = n["runs"][0]
assert r["jobs"] == 3 and r["steps_per_second"]["min"] <= r["steps_per_second"]["median"] <= r["steps_per_second"]["max"]
assert n["n_ranks"] == len(n["ranks"]) == 1 and n["open_seconds"] > 0'
    expect_exit 0
fi

t "numbers that exist are kept, unless --overwrite"
cp numbers.json before.json
run "$rankpool" bench "${quick[@]}" --repeat 1 --json numbers.json
expect_exit 1
expect_in_stderr "numbers.json exists"
expect_same numbers.json before.json
run "$rankpool" bench "${quick[@]}" --repeat 1 --json numbers.json --overwrite
expect_exit 0
expect_different numbers.json before.json

t "--out writes the picture; one that was there before is kept"
run "$rankpool" bench "${quick[@]}" --repeat 2 --out bench.png
expect_exit 0
expect_file bench.png
run "$rankpool" bench "${quick[@]}" --repeat 2 --out bench.png
expect_exit 1
expect_in_stderr "bench.png exists"

t "residency: a row for each, run before job before step in cost of opening"
run "$rankpool" bench "${quick[@]}" --repeat 2 --warmup 0 --residency all
expect_exit 0
for row in run job step; do
    grep -qE "^\| $row \| [0-9.]+ \| [0-9.]+ \| [0-9.]+\.\.[0-9.]+ \| [+-][0-9.]+% \|$" stdout || fail "no row $row"
done
run "$rankpool" bench "${quick[@]}" --repeat 1 --residency run,job
expect_exit 0
grep -q '^| step' stdout && fail "step was not asked for"

t "residency does not change the picture"
for when in run job step; do
    run "$rankpool" sample "${quick[@]}" --residency $when --out $when.png
    expect_exit 0
done
expect_same run.png job.png
expect_same run.png step.png

t "wrong values"
for wrong in --repeat=0 --repeat=x --warmup=-1 --residency=runn --residency=run,run --residency=; do
    run "$rankpool" bench $wrong
    expect_exit 2
    expect_in_stderr "${wrong%%=*}"
    expect_lines stderr 1
done

t "two ranks"
if have_mpi; then
    ranks 2 bench "${quick[@]}" --repeat 2 --warmup 0 --residency all
    expect_exit 0
    expect_in_stdout "2 ranks"
    ranks 2 bench "${quick[@]}" --repeat 2 --warmup 0
    [ "$(grep -cE '^ +[01] +[0-9.]+% +[0-9.]+% +[0-9.]+% +4$' stdout)" = 2 ] || fail "each rank should have 4 units"
else
    skip "no MPI"
fi
finish
