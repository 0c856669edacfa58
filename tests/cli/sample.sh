#!/usr/bin/env bash
# sample.sh - one job: outputs, precedence of settings, pictures that remember how they were made.
. "$(dirname "$0")/lib.sh"

t "a picture, and one line about it"
run "$rankpool" sample --prompt "red heart" "${tiny[@]}" --seed 5 --out heart.png
expect_exit 0
expect_silent stderr
expect_lines stdout 1
grep -qE '^heart\.png: 32x32, 2 steps, seed 5, [0-9.]+ s, [0-9.]+ it/s, 1 rank$' stdout || fail "line differs"
expect_file heart.png
[ "$(head -c 8 heart.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || fail "no PNG"

t "the default name is rankpool.png, the default size the model's"
run "$rankpool" sample --steps 1 --guidance 1
expect_exit 0
expect_in_stdout "rankpool.png: 128x128, 1 step,"
expect_file rankpool.png

t "an output that exists is kept, unless --overwrite"
cp heart.png before.png
run "$rankpool" sample --prompt sun "${tiny[@]}" --out heart.png
expect_exit 1
expect_in_stderr "heart.png" "exists" "--overwrite"
expect_same heart.png before.png
run "$rankpool" sample --prompt sun "${tiny[@]}" --out heart.png --overwrite
expect_exit 0
expect_different heart.png before.png
cp before.png heart.png

t "several pictures are numbered; image i has seed N + i"
run "$rankpool" sample --prompt "red heart" "${tiny[@]}" --seed 4 --images 2 --out many.png
expect_exit 0
expect_in_stdout "2 pictures"
expect_file many-0000.png many-0001.png
expect_no_file many.png
expect_same many-0001.png heart.png

t "a picture makes itself again, byte for byte"
run "$rankpool" sample --from heart.png --threads 1 --out again.png
expect_exit 0
expect_same heart.png again.png

t "precedence: default < environment < --from < command line"
RANKPOOL_STEPS=3 run "$rankpool" sample --width 32 --height 32 --out env.png
expect_setting env.png '"steps":3'
RANKPOOL_STEPS=3 run "$rankpool" sample --from heart.png --out from.png
expect_setting from.png '"steps":2'
RANKPOOL_STEPS=3 run "$rankpool" sample --from heart.png --steps 1 --out line.png
expect_setting line.png '"steps":1'
expect_setting line.png '"prompt":"red heart"'

t "a bad environment is one error that names the variable"
RANKPOOL_STEPS=many run "$rankpool" sample --out bad-env.png
expect_exit 1
expect_in_stderr "RANKPOOL_STEPS" "many" "1 to 1000"
expect_lines stderr 1
expect_no_file bad-env.png

t "forms of options"
run "$rankpool" sample --prompt=--steps "${tiny[@]}" --quiet --out=form.png
expect_exit 0
expect_silent stdout
expect_setting form.png '"prompt":"--steps"'
run "$rankpool" sample --no-quiet "${tiny[@]}" --guidance-renorm=off --out form2.png
expect_exit 0
expect_lines stdout 1
expect_setting form2.png '"guidance-renorm":false'

t "an empty prompt is allowed"
run "$rankpool" sample --prompt "" "${tiny[@]}" --out empty.png
expect_exit 0
expect_file empty.png

t "a prompt over the token limit is cut with a warning that says what was cut"
run "$rankpool" sample --prompt "red heart and a zebra" --system-prompt "" --max-tokens 4 "${tiny[@]}" --out cut.png
expect_exit 0
expect_in_stderr "warning:" "zebra"
expect_lines stderr 1
expect_file cut.png

t "latents out and in give the same picture as one job"
run "$rankpool" sample --prompt sun "${tiny[@]}" --out noise.png --latents-out end.safetensors
expect_exit 0
expect_file end.safetensors
run "$rankpool" sample --prompt pizza "${tiny[@]}" --latents-in end.safetensors --out in1.png --latents-out l1.safetensors
expect_exit 0
run "$rankpool" sample --prompt pizza "${tiny[@]}" --latents-in end.safetensors --out in2.png --latents-out l2.safetensors
expect_exit 0
expect_same in1.png in2.png
expect_same l1.safetensors l2.safetensors
expect_different in1.png noise.png

t "latents of another size are refused"
run "$rankpool" sample --steps 1 --width 64 --height 32 --latents-in end.safetensors --out in3.png
expect_exit 1
expect_in_stderr "end.safetensors" "latents"
expect_no_file in3.png

t "the report has steps, times and ranks"
run "$rankpool" sample "${tiny[@]}" --out rep.png --report rep.json
expect_exit 0
grep -q '"steps_per_second"' rep.json || fail "no steps_per_second"
grep -q '"busy_seconds"' rep.json || fail "no busy_seconds"
if command -v python3 >/dev/null; then
    run python3 -m json.tool rep.json
    expect_exit 0
fi

t "no progress where stderr is no terminal, a bar that is wiped where it is one"
run "$rankpool" sample "${tiny[@]}" --out quiet.png
expect_silent stderr
if command -v script >/dev/null; then
    limit=60 run script -qec "$rankpool sample --steps 12 --threads 1 --out bar.png" /dev/null
    expect_exit 0
    expect_in_stdout "/12 steps" "it/s" "###"
fi

for signal in INT:130 TERM:143; do
    t "SIG${signal%:*} ends the job at the next step and writes nothing"
    run timeout --preserve-status -s "${signal%:*}" 1 "$rankpool" sample --steps 1000 --threads 1 --out never.png
    expect_exit "${signal#*:}"
    grep -qE 'cancelled at step [0-9]+ of 1000; nothing was written' stderr || fail "message differs"
    expect_no_file never.png
    expect_no_parts
done

t "a second signal ends the program at once"
"$rankpool" sample --steps 1000 --threads 1 --width 1024 --height 1024 --out never.png >stdout 2>stderr &
pid=$!
ran="rankpool sample, SIGTERM twice within one long step"
sleep 1
kill -TERM $pid
sleep 0.5
kill -TERM $pid
wait $pid
code=$?
expect_exit 143
expect_not_in_stderr "cancelled"
expect_no_file never.png
finish
