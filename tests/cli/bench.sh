#!/usr/bin/env bash
# bench.sh - measurements: what is printed and written, and that nothing else is.
. "$(dirname "$0")/lib.sh"
quick=(--width 32 --height 32 --threads 1 --steps 2)

t "medians and ranks are printed, and no picture is written"
run "$rankpool" bench "${quick[@]}" --repeat 3 --json numbers.json
expect_exit 0
expect_silent stderr
expect_in_stdout "\"red heart\", 32x32, 2 steps" "1 warm-up, 3 timed" "it/s" "start-up" "rank   busy   idle   wire   units  ms/unit"
grep -qE '^ +0 +[0-9.]+% +[0-9.]+% +[0-9.]+% +12 +[0-9.]+$' stdout || fail "rank 0 should have 2 units x 2 steps x 3 jobs"
[ -z "$(ls -- *.png 2>/dev/null)" ] || fail "a picture was written"
if command -v python3 >/dev/null; then
    run python3 -c 'import json; n = json.load(open("numbers.json")); r = n["runs"][0]
assert r["jobs"] == 3 and r["steps_per_second"]["min"] <= r["steps_per_second"]["median"] <= r["steps_per_second"]["max"]
assert n["n_ranks"] == len(n["ranks"]) == 1 and n["open_seconds"] > 0 and not n["random_weights"]
assert 0 < r["unit_ms"] < r["step_ms"] and r["encode_ms"] > 0 and r["decode_ms"] > 0'
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

t "--timeline: rank 0's units of the last job, one after the other, as a trace"
run "$rankpool" bench "${quick[@]}" --images 2 --repeat 2 --timeline units.json
expect_exit 0
expect_silent stderr
grep -q "GPU idle" stdout && fail "a GPU is spoken of on the CPU"
if command -v python3 >/dev/null; then
    run python3 -c 'import json; units = [e for e in json.load(open("units.json"))["traceEvents"] if e["ph"] == "X"]
assert len(units) == 8 and units[0]["ts"] == 0 and all(u["dur"] > 0 for u in units)
assert all(b["ts"] >= a["ts"] + a["dur"] - 1e-6 for a, b in zip(units, units[1:]))
assert [u["args"]["step"] for u in units] == [0] * 4 + [1] * 4
assert sorted({u["name"] for u in units}) == [f"image {i}, condition {c}" for i in (0, 1) for c in (0, 1)]'
    expect_exit 0
fi
cp units.json before.json
run "$rankpool" bench "${quick[@]}" --repeat 1 --timeline units.json
expect_exit 1
expect_in_stderr "units.json exists"
expect_same units.json before.json

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

t "random weights: a folder with the configs alone is enough, and the numbers come out"
mkdir configs
(cd "$model" && find . \( -name '*config.json' -o -name model_index.json \) ! -path '*/tokenizer/*' -print0 |
    xargs -0 cp --parents -t "$work/configs")
random=(--model configs --random-weights "${quick[@]}" --prompt-tokens 12)
run "$rankpool" bench "${random[@]}" --repeat 2 --latents-out one.safetensors --report one.json
expect_exit 0
expect_silent stderr
expect_in_stdout "random weights, 12 tokens, 32x32" "start-up"
expect_file one.safetensors
for number in open_seconds encode_seconds noise_seconds load_seconds decode_seconds steps_per_second step_ms unit_ms; do
    grep -qE "\"$number\":\s+[0-9.]*[1-9]" one.json || fail "the report lacks $number"
done

t "random weights: 30 steps stay finite"
run "$rankpool" bench "${random[@]}" --repeat 1 --warmup 0 --steps 30
expect_exit 0

t "random weights: two ranks draw the same ones"
if have_mpi; then
    ranks 2 bench "${random[@]}" --repeat 2 --latents-out two.safetensors
    expect_exit 0
    expect_same one.safetensors two.safetensors
else
    skip "no MPI"
fi

t "random weights: what is missing, and what is too much"
run "$rankpool" bench "${random[@]}" --prompt-tokens 300
expect_exit 1
expect_in_stderr "prompt-tokens: 300" "up to 299"
expect_lines stderr 1
run "$rankpool" bench --model configs
expect_exit 1
expect_in_stderr "no weights in configs/transformer"
for file in model_index.json transformer/config.json text_encoder/config.json vae/config.json \
    scheduler/scheduler_config.json; do
    mv configs/$file away.json
    run "$rankpool" bench "${random[@]}"
    expect_exit 1
    expect_in_stderr "$file"
    expect_lines stderr 1
    mv away.json configs/$file
done

t "random weights are for measuring only"
run "$rankpool" sample --random-weights
expect_exit 2
expect_in_stderr "--random-weights is for \`rankpool bench\` only"
run env RANKPOOL_RANDOM_WEIGHTS=on "$rankpool" sample "${quick[@]}" --out env.png
expect_exit 0
run "$rankpool" sample "${quick[@]}" --out plain.png
expect_same env.png plain.png
run "$rankpool" sample --help
grep -q random-weights stdout && fail "sample's help shows --random-weights"
run "$rankpool" bench --help
expect_in_stdout "--random-weights" "RANKPOOL_PROMPT_TOKENS"

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
    [ "$(grep -cE '^ +[01] +[0-9.]+% +[0-9.]+% +[0-9.]+% +4 +[0-9.]+$' stdout)" = 2 ] || fail "each rank should have 4 units"
else
    skip "no MPI"
fi
finish
