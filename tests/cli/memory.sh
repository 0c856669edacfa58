#!/usr/bin/env bash
# memory.sh - 200 jobs in one batch leave the ranks' memory flat.
. "$(dirname "$0")/lib.sh"

if is_sanitized; then
    t "memory stays flat"
    skip "the sanitizer keeps freed memory"
    finish
fi

# jobs that differ in what makes buffers grow: prompt length, pictures, sampler
for i in $(seq 50); do
    echo '{"prompt": "sun"}'
    echo '{"prompt": "a picture of a red heart on a yellow background", "negative": "blue", "images": 2}'
    echo '{"prompt": "pizza", "sampler": "dpmpp_2m", "steps": 2}'
    echo '{"prompt": "sun", "guidance": 4}'
done >jobs.jsonl

# Anonymous resident memory in KiB of every process below $1, or of $1 itself.
sample_memory() {
    local pid pids
    pids=$(pgrep -P "$1" 2>/dev/null || true)
    for pid in ${pids:-$1}; do
        awk -v pid="$pid" '/^RssAnon/ { print pid, $2 }' "/proc/$pid/status" 2>/dev/null
    done
}

# Growth in KiB of each process from a third of the batch to its end; few numbers mean no measurement.
check_flat() { # samples-file n-processes
    awk -v want="$2" '
    { n[$1]++; kib[$1, n[$1]] = $2 }
    END {
        for (pid in n) {
            if (n[pid] < 9) continue
            processes++
            from = int(n[pid] / 3); early = late = 0
            for (i = from; i <= from + 1; i++) early = kib[pid, i] > early ? kib[pid, i] : early
            for (i = n[pid] - 1; i <= n[pid]; i++) late = kib[pid, i] > late ? kib[pid, i] : late
            growth = late - early
            printf "%s %d samples, %d KiB to %d KiB\n", pid, n[pid], early, late
            if (growth > 1024) bad = 1
        }
        exit bad || processes != want
    }' "$1" >growth || fail "memory: $(tr '\n' ';' <growth)"
}

measure() { # n-processes command...
    local want=$1 pid
    shift
    ran="$*"
    timeout 100 "$@" >stdout 2>stderr </dev/null &
    pid=$!
    : >samples
    sleep 0.5
    # timeout's child is the command
    while kill -0 $pid 2>/dev/null; do
        sample_memory "$(pgrep -P $pid | head -1)" >>samples
        sleep 0.15
    done
    wait $pid
    code=$?
    check_flat samples "$want"
}

batch=(batch jobs.jsonl --steps 1 --guidance 1 --width 32 --height 32 --threads 1 --quiet)

t "one rank"
measure 1 "$rankpool" "${batch[@]}" --out-dir one
expect_exit 0
[ "$(find one -name '*.png' | wc -l)" = 250 ] || fail "not all pictures were made"

t "two ranks"
if have_mpi; then
    measure 2 mpirun -n 2 "$rankpool" "${batch[@]}" --out-dir two
    expect_exit 0
    [ "$(find two -name '*.png' | wc -l)" = 250 ] || fail "not all pictures were made"
else
    skip "no MPI"
fi
finish
