#!/bin/bash
# test_lost.sh BUILD_FOLDER - a rank goes in the middle of a step: all others end within 5 seconds, the
# message names the rank and its host, the exit code is not 0; with a launcher that cleans up, and with
# one told not to (mpirun --enable-recovery), where MPI itself would wait forever.
set -u
lost=$(realpath "${1:?build folder}/bin/lost")
[ -x "$lost" ] || { echo "no program $lost"; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-lost-XXXXXX")
trap 'rm -rf "$dir"' EXIT
host=$(hostname)
failures=0

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader
export OMPI_MCA_btl_vader_backing_directory=$dir # killed ranks leave their segments behind

# mpirun --enable-recovery exits with 0 whatever its ranks did: this one keeps their exit codes.
cat >"$dir/keep" <<'END'
#!/bin/sh
"$@"
code=$?
echo $code >"$2/code-$OMPI_COMM_WORLD_RANK"
exit $code
END
chmod +x "$dir/keep"

fail() {
    echo "FAILED: $name: $1"
    sed 's/^/    | /' "$dir/log"
    failures=$((failures + 1))
}

count() { grep -cE -- "$1" "$dir/log"; }

# Ranks (and nothing else) have the folder of this test as an argument of `lost`.
survivors() { pgrep -f "^[^ ]*lost $dir/" | tr '\n' ' '; }

# run NAME RANKS VICTIM HOW [more words for mpirun]: sets rc, and ms from the end of the victim to the end of all
run() {
    name=$1
    local n=$2 victim=$3 how=$4
    shift 4
    mkdir -p "$dir/$name"
    timeout -k 1 30 mpirun -n "$n" "$@" "$lost" "$dir/$name" "$victim" "$how" >"$dir/log" 2>&1
    rc=$?
    local end
    end=$(date +%s%3N)
    ms=0
    [ -e "$dir/$name/death" ] && ms=$((end - $(date -r "$dir/$name/death" +%s%3N)))
    left=$(survivors)
    if [ -n "$left" ]; then
        sleep 1
        left=$(survivors)
        [ -n "$left" ] && fail "processes left: $left" && kill -9 $left 2>/dev/null
    fi
    echo "$name: exit code $rc, $ms ms after the end of rank $victim, $(count '^rankpool: ') lines of rankpool"
}

# The victim has ended, nobody waited for it, and the exit code tells.
check_ended() {
    [ -e "$dir/$name/death" ] || fail "rank $1 never came to its end"
    [ "$ms" -lt 5000 ] || fail "took $ms ms"
    [ "$rc" -ne 0 ] && [ "$rc" -ne 124 ] || fail "exit code $rc"
}

# The same where mpirun hides it: $2... are the ranks that must have ended themselves.
check_ended_themselves() {
    [ -e "$dir/$name/death" ] || fail "rank $1 never came to its end"
    [ "$ms" -lt 5000 ] || fail "took $ms ms"
    shift
    for r in "$@"; do
        [ "$(cat "$dir/$name/code-$r")" = 70 ] || fail "exit code of rank $r is not 70"
        [ -e "$dir/$name/hook-$r" ] || fail "the hook of rank $r did not run"
    done
}

# One line about rank $1, and rank 0 took care of its unfinished files.
check_told() {
    [ "$(count "^rankpool: error: rank $1 \(host $host, pid [0-9]+\) has gone")" = 1 ] || fail "no message, or several"
    [ "$(count '^rankpool: ')" = 1 ] || fail "more than one line"
    [ -e "$dir/$name/hook-0" ] || fail "the hook of rank 0 did not run"
}

for how in kill exit segv; do
    run "worker-$how" 3 1 $how
    check_ended 1
    check_told 1
    run "worker-$how-recovery" 4 2 $how --enable-recovery "$dir/keep"
    check_ended_themselves 2 0 1 3
    check_told 2
done

run root-kill 3 0 kill
check_ended 0
run root-kill-recovery 4 0 kill --enable-recovery "$dir/keep"
check_ended_themselves 0 1 2 3
[ "$(count "^rankpool: error: lost contact to rank 0 \(host $host, pid [0-9]+\)")" = 1 ] || fail "no message, or several"

# A rank that gives up says why, and nobody calls it lost.
run worker-abort 3 1 abort
check_ended 1
[ "$rc" = 9 ] || fail "exit code $rc, not 9"
[ "$(count "^rankpool: error: rank 1 on host $host: the device has fallen off the bus")" = 1 ] || fail "no reason"
[ "$(count '^rankpool: ')" = 1 ] || fail "more than one line"

# Ended by the user: no line about ranks that go.
mkdir -p "$dir/term"
name=term
mpirun -n 3 "$lost" "$dir/term" -1 kill >"$dir/log" 2>&1 &
pid=$!
for _ in $(seq 100); do
    [ -e "$dir/term/open-2" ] && break
    sleep 0.1
done
sleep 0.3
kill -TERM $pid
wait $pid
rc=$?
echo "term: exit code $rc, $(count '^rankpool: ') lines of rankpool"
[ "$rc" -ne 0 ] || fail "exit code 0"
[ "$(count '^rankpool: ')" = 0 ] || fail "lines about ranks that the user ended"

# Without TCP to rank 0: one warning, and the waves go on.
run unreachable 3 2 unreachable
if [ "$rc" = 77 ] || grep -q "exit code.*77" "$dir/log"; then
    echo "unreachable: skipped, needs the right to make a network namespace"
else
    [ "$rc" = 0 ] || fail "exit code $rc"
    [ "$(count "^rankpool: warning: rank 2 on host $host cannot reach rank 0")" = 1 ] || fail "no warning, or several"
fi

[ $failures = 0 ] && echo "all passed"
exit $((failures != 0))
