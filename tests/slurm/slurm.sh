#!/usr/bin/env bash
# slurm.sh BUILD_DIR PART [LAUNCHER] - what run.sh runs inside the namespaces: the scripts of slurm/, submitted and
# looked at.
. "$(dirname "$0")/../cli/lib.sh"
. "$(dirname "$0")/cluster.sh"

export RP_ROOT=$root RP_PROGRAM=$rankpool RP_SITE=$work/site.env
small=(--steps 3 --width 32 --height 32 --threads 1)

daemons_say() { # without what they repeat
    local file
    for file in "$work"/cluster/slurm*.log; do
        echo "==> $(basename "$file") <=="
        grep -v 'Running job scheduler\|ping agent\|_attempt_backfill' "$file" | tail -n 25
    done
}

if ! cluster_start "$work/cluster"; then
    echo "slurm: the test's own Slurm did not start:"
    daemons_say
    exit 1
fi

site() { # srun or mpirun: what site.env says
    printf '%s\n' 'export SBATCH_PARTITION=test' 'RP_INTERFACE=eth0' "RP_LAUNCHER=$1" >site.env
}

# Submit, sets job and log.
submit() { # NAME sbatch-option... SCRIPT argument...
    log=$1.log
    shift
    ran="sbatch $*"
    job=$(on n1 sbatch --parsable --output="$work/$log" "$@") || fail "sbatch refuses"
}

state() { on n1 scontrol show job -o "$job" | tr ' ' '\n' | sed -n 's/^JobState=//p' | sort -u | xargs; }

# Wait until the job is in one of the states, or a file is there.
await() { # SECONDS STATE|FILE...
    local end=$(($(date +%s) + $1)) now want
    shift
    while [ "$(date +%s)" -lt "$end" ]; do
        now=$(state)
        for want in "$@"; do
            [ "$now" != "$want" ] && [ ! -e "$want" ] || return 0
        done
        sleep 0.2
    done
    fail "not $* in time but $now"
    return 1
}

job_field() { on n1 scontrol show job -o "$job" | tr ' ' '\n' | sed -n "s/^$1=//p"; }

# Run a job to its end; what it printed becomes stdout for expect_*.
complete() { # NAME sbatch-option... SCRIPT argument...
    local name=$1
    shift
    submit "$name" "$@"
    await 60 COMPLETED FAILED NODE_FAIL CANCELLED
    end_of_job
}
end_of_job() {
    code=$(job_field ExitCode | awk -F: '{ print ($2 > 0 ? 128 + $2 : $1) }')
    cp "$log" stdout && : >stderr
}

# Slurm holds a requeued job back for two minutes. When it is told to start it at once, what ends the old start
# could meet the new one: not before the nodes are free.
start_again() { # NODES that live
    await 30 PENDING
    cluster_ready "$1" || fail "the nodes do not become free"
    sleep 4 # the old permission to run is refused by the second
    for _ in $(seq 50); do
        on n1 scontrol update jobid="$job" StartTime=now 2>/dev/null
        [ "$(state)" = PENDING ] || return
        sleep 0.3
    done
}

# Every picture is there, made in one start only, and the undisturbed one.
check_pictures() { # FOLDER
    local i n
    for i in 1 2 3 4 5 6; do
        expect_same "$1/000$i.png" whole/000$i.png
        n=$(grep -c "000$i.png: .* step" "$log")
        [ "$n" = 1 ] || fail "picture $i was made $n times"
    done
    [ "$(find "$1" -type f | wc -l)" = 6 ] || fail "$1 holds more than the pictures"
}

# long enough that a signal finds a picture in the making, also on an idle machine
for i in 1 2 3 4 5 6; do echo "{\"seed\": $i, \"steps\": 300}"; done >jobs.jsonl
job_options=(--width 32 --height 32 --threads 1)

reference() { # what they are to be, made by the first part that asks
    if [ ! -e "$TMPDIR/reference" ]; then
        mkdir made
        run "$rankpool" batch jobs.jsonl --out-dir made/whole "${job_options[@]}"
        run "$rankpool" sample --images 4 "${small[@]}" --out made/alone.png
        mv made "$TMPDIR/reference"
    fi
    ln -s "$TMPDIR"/reference/* .
}

test_nodes() { # LAUNCHER
    site "$1"
    t "one node, $1"
    complete "one-$1" --ntasks-per-node=2 "$root/slurm/one-node.sbatch" --images 4 "${small[@]}" --out "one-$1.png"
    expect_exit 0
    expect_in_stdout "2 ranks"
    for i in 0 1 2 3; do expect_same "one-$1-000$i.png" alone-000$i.png; done

    t "four nodes, $1"
    complete "four-$1" --ntasks-per-node=1 "$root/slurm/nodes.sbatch" --images 4 "${small[@]}" --out "four-$1.png"
    expect_exit 0
    expect_in_stdout "4 ranks"
    for i in 0 1 2 3; do expect_same "four-$1-000$i.png" alone-000$i.png; done
    [ "$1" != srun ] || expect_barriers
}

# Slurm's tree of few nodes is no barrier (job.sh): a rank that is slow to start would crash.
expect_barriers() {
    grep -q COLL_FENCE_RING "$work"/cluster/slurmd.n2.log || fail "slurmd does not say how it waits for all ranks"
    ! grep -q COLL_FENCE_TREE "$work"/cluster/slurmd.*.log || fail "Slurm waits for all ranks in a tree"
}

takes() { # TEXT : how many ranks say so
    grep -c "$1" stdout
}

test_gpus() { # LAUNCHER
    site "$1"
    t "a GPU for each rank: all of the node's are seen, $1"
    complete "node-gpus-$1" --gpus-per-node=2 "$root/tests/slurm/devices.sbatch"
    expect_exit 0
    [ "$(takes 'sees GPUs 0,1, takes 0$')" = 2 ] && [ "$(takes 'sees GPUs 0,1, takes 1$')" = 2 ] || fail "not one GPU each"

    t "a GPU for each rank: --gpus-per-task, $1"
    complete "task-gpus-$1" --gpus-per-task=1 "$root/tests/slurm/devices.sbatch"
    expect_exit 0
    [ "$(takes 'sees GPU.*, takes 0$')" = 2 ] && [ "$(takes 'sees GPU.*, takes 1$')" = 2 ] || fail "not one GPU each"
}

test_stop() { # LAUNCHER
    site "$1"
    t "told to stop in the middle of a batch: nothing is lost or made twice, $1"
    submit "stop-$1" --ntasks-per-node=2 "$root/slurm/batch.sbatch" jobs.jsonl "stop-$1" "${job_options[@]}"
    await 40 "stop-$1/0002.png" || return
    sleep 0.2
    on n1 scancel --batch --signal=USR1 "$job" # what --signal=B:USR1@120 does
    start_again 4
    await 60 COMPLETED FAILED
    end_of_job
    expect_exit 0
    expect_in_stdout "job.sh: exit code 85: back into the queue (restart 1)" "going on from step"
    [ "$(job_field Restarts)" = 1 ] || fail "$(job_field Restarts) restarts"
    check_pictures "stop-$1"
}

test_array() {
    site srun
    t "an array makes each file of prompts in its own folder"
    mkdir prompts
    for i in 1 2 3; do echo "{\"seed\": $i, \"steps\": 3}" >prompts/part$i.jsonl; done
    submit array --array=0-3 --ntasks-per-node=1 "$root/slurm/array.sbatch" prompts parts "${job_options[@]}"
    await 60 "COMPLETED FAILED" # the fourth has no file
    for i in 1 2 3; do
        run "$rankpool" sample --seed "$i" "${small[@]}" --out part$i.png
        expect_same parts/part$i/0001.png part$i.png
    done
    cp "$log" stdout
    expect_in_stdout "task 3 has no file: prompts has 3 files"
}

test_scaling() {
    site srun
    t "a scaling study in an allocation"
    complete scaling --ntasks-per-node=2 "$root/slurm/scaling.sbatch" study 1,2 --repeat 1 --images 1 -- "${small[@]}"
    expect_exit 0
    expect_file study/scaling.csv study/scaling.md
}

test_cancel() {
    site srun
    t "scancel ends a batch soon; what is finished stays whole"
    submit cancel --ntasks-per-node=2 "$root/slurm/batch.sbatch" jobs.jsonl cancel "${job_options[@]}"
    await 40 cancel/0001.png || return
    on n1 scancel "$job"
    await 15 CANCELLED
    expect_same cancel/0001.png whole/0001.png
    expect_no_file cancel/0006.png
    expect_no_parts cancel
}

test_dead() { # LAUNCHER
    site "$1"
    t "a node dies: the job says which, goes back into the queue, and ends on the others, $1"
    cluster_ready 4 || { fail "the nodes do not become free"; return; }
    submit "dead-$1" --ntasks-per-node=1 --nodes=2 --nodelist=n1,n4 "$root/slurm/batch.sbatch" jobs.jsonl "dead-$1" "${job_options[@]}"
    await 40 "dead-$1/0002.png" || return
    cluster_kill n4
    await 60 PENDING || return
    on n1 scontrol update jobid="$job" NodeList= ExcNodeList=n4
    start_again 3
    await 60 COMPLETED FAILED
    end_of_job
    expect_exit 0
    expect_in_stdout "(host n4, pid"
    # by job.sh, or by Slurm when that sees the node first
    [ "$(job_field Restarts)" -ge 1 ] || fail "no restart"
    check_pictures "dead-$1"
    cluster_boot n4
    cluster_ready 4 || fail "n4 does not come back"
}

test_limit() { # only when it is named: Slurm looks at time limits every 30 s
    site srun
    t "120 s before the time limit Slurm sends the signal itself"
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo "{\"seed\": $i, \"steps\": 1000}"; done >long.jsonl
    submit limit --nodes=1 --ntasks-per-node=1 --time=3 "$root/slurm/batch.sbatch" long.jsonl limit "${job_options[@]}"
    await 120 PENDING COMPLETED FAILED
    while [ "$(state)" = PENDING ]; do
        start_again 4
        await 150 PENDING COMPLETED FAILED
    done
    end_of_job
    expect_exit 0
    [ "$(job_field Restarts)" -ge 1 ] || fail "no restart"
    expect_in_stdout "job.sh: exit code 85: back into the queue (restart 1)"
    [ "$(grep -c ': 32x32, 1000 steps' "$log")" = 14 ] || fail "not each picture once"
}

reference
shift
"test_$1" "${@:2}"
[ -z "${KEEP:-}" ] || cp -r "$work" "$TMPDIR/kept-$1${2:+-$2}"
end_test
[ $n_failed -eq 0 ] && exit
echo "==> $log <=="
tail -n 60 "$log"
daemons_say
exit 1
