#!/usr/bin/env bash
# requeue.sh - jobs that are told to stop go on where they were: same pictures, none lost, none made twice.
. "$(dirname "$0")/lib.sh"

long=(--width 32 --height 32 --threads 1 --quiet)
slower=1
is_sanitized && slower=5 # so many times fewer steps take as long

# Run a command in the background and send a signal once it is in the middle of a job. Sets code.
stop() { # SIGNAL SECONDS COMMAND...
    local signal=$1 after=$2 pid i
    shift 2
    ran="$* and SIG$signal"
    "$@" >stdout 2>stderr </dev/null &
    pid=$!
    for i in $(seq 200); do # SIGUSR1 is number 10
        (((16#$(sed -n 's/^SigCgt:[[:space:]]*//p' /proc/$pid/status) >> 9) & 1)) && break
        sleep 0.02
    done
    sleep "$after"
    kill -s "$signal" $pid
    wait $pid
    code=$?
}

# stop until a checkpoint is there: how long opening takes depends on the machine. What was right once comes first.
right_after=0.1
stop_in_job() { # SIGNAL CHECKPOINT COMMAND...
    local signal=$1 file=$2 after
    shift 2
    for after in $right_after 0.1 0.2 0.3 0.5 0.8 1.5 3; do
        stop "$signal" "$after" "$@"
        [ -e "$file" ] || continue
        right_after=$after
        return 0
    done
    fail "no checkpoint $file"
}

for sampler in euler heun midpoint dpmpp_2m; do
    t "a picture that is stopped twice is the undisturbed one: $sampler"
    steps=$((240 / slower))
    [ $sampler != heun ] && [ $sampler != midpoint ] || steps=$((steps / 2))
    job=(sample --prompt sun --steps $steps --sampler $sampler "${long[@]}")
    run "$rankpool" "${job[@]}" --out whole-$sampler.png --latents-out whole-$sampler.safetensors
    expect_exit 0
    resume=("${job[@]}" --out $sampler.png --latents-out $sampler.safetensors --checkpoint $sampler.ck)
    stop_in_job USR1 $sampler.ck "$rankpool" "${resume[@]}"
    expect_exit 85
    expect_in_stderr "the next start goes on from $sampler.ck"
    expect_no_file $sampler.png
    stop USR1 0.3 "$rankpool" "${resume[@]}"
    [ $code = 85 ] || [ $code = 0 ] || fail "exit $code"
    [ $code = 0 ] || run "$rankpool" "${resume[@]}"
    expect_exit 0
    expect_same $sampler.png whole-$sampler.png
    expect_same $sampler.safetensors whole-$sampler.safetensors
    expect_no_file $sampler.ck
done

t "without --checkpoint nothing is written; a signal while the pool opens is no death"
stop USR1 0 "$rankpool" sample --steps 1000 "${long[@]}" --out none.png
expect_exit 85
expect_no_file none.png

t "a checkpoint of other settings: a warning, and the picture starts over"
stop_in_job TERM other.ck "$rankpool" sample --prompt sun --steps 1000 "${long[@]}" --out other.png --checkpoint other.ck
expect_exit 143
cp other.ck kept.ck
run "$rankpool" sample --prompt pizza "${tiny[@]}" --out other.png --checkpoint other.ck
expect_exit 0
expect_in_stderr "other.ck is the checkpoint of other settings"
expect_no_file other.ck

t "a file that is no checkpoint, or a damaged one, is refused and left alone"
for file in "$model/vae/diffusion_pytorch_model.safetensors" notes.ck cut.ck; do
    echo "notes" >notes.ck
    head -c -16 kept.ck >cut.ck
    run "$rankpool" sample "${tiny[@]}" --out no.png --checkpoint "$file"
    expect_exit 1
    expect_in_stderr "$file"
    expect_file "$file"
    expect_no_file no.png
done

t "bench takes no checkpoint"
run "$rankpool" bench "${tiny[@]}" --checkpoint x.ck
expect_exit 2

for i in 1 2 3 4; do echo "{\"seed\": $i, \"steps\": $((i == 3 ? 300 / slower : 4))}"; done >jobs.jsonl
check_batch() { # FOLDER: after the second start
    local i
    expect_exit 0
    expect_in_stdout "made 2, kept 2, failed 0"
    expect_in_stderr "jobs.jsonl:3: going on from step"
    for i in 1 2 3 4; do expect_same "$1/000$i.png" whole/000$i.png; done
    [ "$(find "$1" -type f | wc -l)" = 4 ] || fail "more than the pictures in $1"
}
speak=(--width 32 --height 32 --threads 1)

t "a batch after SIGUSR1: what is done stays, the rest is made, byte for byte as undisturbed"
run "$rankpool" batch jobs.jsonl --out-dir whole "${long[@]}"
expect_exit 0
stop_in_job USR1 batch/0003.png.checkpoint "$rankpool" batch jobs.jsonl --out-dir batch "${speak[@]}"
expect_exit 85
expect_in_stdout "made " "not run 2"
expect_file batch/0002.png
run "$rankpool" batch jobs.jsonl --out-dir batch "${speak[@]}"
check_batch batch

t "the same under mpirun, which passes the signal on"
if have_mpi; then
    for after in 0.1 0.2 0.4 0.8 1.6; do
        mpirun -n 2 "$rankpool" batch jobs.jsonl --out-dir two "${speak[@]}" >stdout 2>stderr </dev/null &
        launcher=$!
        for i in $(seq 200); do [ -e two/0002.png ] && break; sleep 0.05; done
        sleep "$after"
        kill -s USR1 $launcher
        wait $launcher
        code=$?
        [ ! -e two/0003.png.checkpoint ] || break
    done
    expect_exit 85
    expect_file two/0003.png.checkpoint
    ranks 2 batch jobs.jsonl --out-dir two "${speak[@]}"
    check_batch two
else
    skip "no MPI"
fi
finish
