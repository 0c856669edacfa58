#!/usr/bin/env bash
# lost.sh - a rank dies in the middle of a batch: the job ends soon, what was finished stays.
. "$(dirname "$0")/lib.sh"

if ! have_mpi; then
    t "lost ranks"
    skip "no MPI"
    finish
fi
for i in $(seq 400); do echo "{\"seed\": $i}"; done >jobs.jsonl

# The process of a rank, among those that mpirun started.
pid_of_rank() { # mpirun-pid rank
    local pid
    for pid in $(pgrep -P "$1"); do
        if tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$2"; then
            echo "$pid"
            return
        fi
    done
}

# Wait until the batch has made a few pictures.
wait_for() { # file
    local i
    for i in $(seq 300); do
        [ -e "$1" ] && return
        sleep 0.05
    done
    fail "$1 did not appear"
}

# Kill rank $2 with SIGKILL; $1 is the output folder, the rest are options of mpirun.
kill_one() {
    local out=$1 victim=$2 launcher began ended
    shift 2
    mpirun "$@" -n 3 "$rankpool" batch jobs.jsonl --out-dir "$out" --steps 4 --width 64 --height 64 \
        --threads 1 >stdout 2>stderr </dev/null &
    launcher=$!
    ran="mpirun $* -n 3 rankpool batch, rank $victim killed"
    wait_for "$out/0003.png"
    kill -9 "$(pid_of_rank $launcher "$victim")"
    began=$(date +%s%N)
    for _ in $(seq 200); do
        kill -0 $launcher 2>/dev/null || break
        sleep 0.05
    done
    kill -0 $launcher 2>/dev/null && fail "still running 10 s after the loss" && kill $launcher
    wait $launcher
    code=$?
    ended=$(date +%s%N)
    seconds=$(((ended - began) / 1000000000))
    [ $seconds -lt 5 ] || fail "took $seconds s"
}

# Every finished picture is whole: rankpool reads it and makes the same one again.
check_finished() {
    local n
    n=$(find "$1" -name '*.png' | wc -l)
    [ "$n" -ge 3 ] || fail "only $n pictures are left"
    [ "$n" -lt 400 ] || fail "the batch had already ended"
    for picture in "$1"/*.png; do
        tail -c 12 "$picture" | grep -qa IEND || fail "$picture is cut"
    done
    picture=$(find "$1" -name '*.png' | sort | tail -1)
    cp stdout stdout.kept && cp stderr stderr.kept
    timeout 60 "$rankpool" sample --from "$picture" --threads 1 --out "$1.again.png" >/dev/null 2>&1
    expect_same "$picture" "$1.again.png"
    expect_no_parts "$1"
}

t "a worker is killed"
kill_one worker 2
[ $code -ne 0 ] || fail "exit 0"
expect_in_stderr "rank 2"
check_finished worker

t "a worker is killed where the launcher would let the others go on"
kill_one recovery 1 --enable-recovery # mpirun's own exit code says nothing then
expect_in_stderr "rank 1"
check_finished recovery

t "rank 0 is killed"
kill_one root 0
[ $code -ne 0 ] || fail "exit 0"
check_finished root

t "the same command again keeps what was made"
head -8 jobs.jsonl >few.jsonl
run "$rankpool" batch few.jsonl --out-dir worker --steps 4 --width 64 --height 64 --threads 1
expect_exit 0
tail -1 stdout | grep -qE 'kept [3-8], failed 0' || fail "last line differs"

t "SIGTERM to mpirun ends all ranks"
mpirun -n 2 "$rankpool" sample --steps 1000 --threads 1 --out never.png >stdout 2>stderr </dev/null &
launcher=$!
ran="mpirun -n 2 rankpool sample, SIGTERM to mpirun"
sleep 2
pids=$(pgrep -P $launcher | tr '\n' ' ')
kill -TERM $launcher
wait $launcher
code=$?
expect_exit nonzero
sleep 2
for pid in $pids; do
    kill -0 "$pid" 2>/dev/null && fail "process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
done
expect_no_file never.png
expect_no_parts
finish
