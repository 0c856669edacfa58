#!/usr/bin/env bash
# run.sh [seconds] - build the fuzz targets with clang and run each for that long (default 10).
#
# Prints executions a target. A crash is kept as build-fuzz/crashes/<target>/crash-*, and the script
# then ends with 1. Run one again with: build-fuzz/bin/<target> <file>
set -u
seconds=${1:-10}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${RP_FUZZ_BUILD:-$root/build-fuzz}

log=$build/build.log

case $seconds in
'' | *[!0-9]* | 0) echo "usage: run.sh [seconds per target, 1 or more]" >&2; exit 2 ;;
esac
command -v clang >/dev/null && command -v clang++ >/dev/null ||
    { echo "fuzz: clang and clang++ are needed (Debian: clang libclang-rt-dev)" >&2; exit 2; }

mkdir -p "$build"
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DRP_FUZZ=ON -DRP_MPI=OFF >"$log" 2>&1 &&
    cmake --build "$build" --target fuzz >>"$log" 2>&1 ||
    { tail -n 30 "$log" >&2; echo "fuzz: the build failed, see $log" >&2; exit 2; }

work=$(mktemp -d)
end() { # a target is the child of a job
    local pids
    pids=$(jobs -p)
    [ -z "$pids" ] || { pkill -P "$(paste -sd, <<<"$pids")"; kill $pids; } 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
trap 'exit 143' TERM INT HUP
fuzz() { # NAME : prints its line, and ends with 1 after a crash
    local name=$1 crashes=$build/crashes/$1 verdict=ok dict=() runs edges
    mkdir -p "$work/$name" "$crashes"
    cp -r "$here/corpus/$name/." "$work/$name/" 2>/dev/null # seeds are read, not grown
    [ -f "$here/$name.dict" ] && dict=(-dict="$here/$name.dict")
    "$build/bin/$name" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$crashes/" "${dict[@]}" "$work/$name" \
        >"$work/$name.log" 2>&1 || verdict=CRASHED
    if [ $verdict != ok ]; then
        grep -vE '^#|NEW|REDUCE' "$work/$name.log" | tail -n 40 >&2
        ls -t "$crashes" | head -n 1 | sed "s|^|kept: $crashes/|" >&2
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log")
    edges=$(grep -oE 'cov: [0-9]+' "$work/$name.log" | tail -n 1)
    echo "$name: ${runs:-?} executions in $seconds s, ${edges:-cov: ?} edges, $verdict"
    [ $verdict = ok ]
}

# One a core.
bad=0 running=0
for source in "$here"/fuzz_*.c; do
    if [ $running -ge "$(nproc)" ]; then
        wait -n || bad=1
        running=$((running - 1))
    fi
    fuzz "$(basename "$source" .c)" &
    running=$((running + 1))
done
while [ $running -gt 0 ]; do
    wait -n || bad=1
    running=$((running - 1))
done
exit $bad
