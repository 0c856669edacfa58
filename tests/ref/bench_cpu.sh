#!/usr/bin/env bash
# bench_cpu.sh [BUILD] - rankpool and PyTorch side by side on this machine's CPU, one table.
#
# The same loop everywhere: the shipped model, 30 Euler steps, guidance 4, 128x128, float32. The rows
# take turns ROUNDS times (default 3), each time REPEAT jobs (default 5) after one warm-up; the table has
# the best round's median, because a shared machine only ever makes things slower.
#
#   PYTHONS  interpreters with torch to compare with (default: python3 of the system)
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build}
rounds=${ROUNDS:-3} repeat=${REPEAT:-5}
rankpool=$build/bin/rankpool
[ -x "$rankpool" ] || { echo "no $rankpool; build first (./launch/quickstart.sh)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

ours() { # ours NAME RANKS [OPTION...]
    local name=$1 ranks=$2 run=()
    shift 2
    [ "$ranks" -gt 1 ] && run=(mpirun -n "$ranks")
    "${run[@]}" "$rankpool" bench --repeat "$repeat" --json "$work/json" --overwrite "$@" >/dev/null
    python3 -c 'import json,sys; j=json.load(open(sys.argv[1])); print(sys.argv[2], j["runs"][0]["steps_per_second"]["median"], sep="\t")' \
        "$work/json" "$name" >>"$work/rows"
}

peer() { # peer PYTHON THREADS
    "$1" tests/ref/peer.py --threads "$2" --repeat "$repeat" --json 2>/dev/null >"$work/json" || return 0
    python3 -c 'import json,sys; j=json.load(open(sys.argv[1])); print("PyTorch "+j["torch"]+", "+sys.argv[2]+" thread(s)", j["steps_per_second"], sep="\t")' \
        "$work/json" "$2" >>"$work/rows"
}

for _ in $(seq "$rounds"); do
    ours "rankpool, 1 rank of 1 thread" 1 --threads 1
    for python in ${PYTHONS:-python3}; do peer "$python" 1; done
    ours "rankpool, 2 ranks of 1 thread" 2 --threads 1
    ours "rankpool, 1 rank of 2 threads" 1 --threads 2
    for python in ${PYTHONS:-python3}; do peer "$python" 2; done
    ours "rankpool, 1 rank of 1 thread, 2 images" 1 --threads 1 --images 2
    ours "rankpool, 2 ranks of 1 thread, 2 images" 2 --threads 1 --images 2
done

python3 - "$work/rows" <<'PY'
import sys
best = {}
for line in open(sys.argv[1]):
    name, value = line.rstrip("\n").split("\t")
    best[name] = max(best.get(name, 0), float(value))
print("| loop | it/s | ms/step |\n| --- | --- | --- |")
for name, v in best.items():
    print(f"| {name} | {v:.2f} | {1000 / v:.2f} |")
def ratio(a, b):
    if a in best and b in best:
        print(f"* {a} / {b}: {best[a] / best[b]:.2f}")
print()
one = "rankpool, 1 rank of 1 thread"
ratio("rankpool, 2 ranks of 1 thread", one)
ratio("rankpool, 2 ranks of 1 thread, 2 images", one + ", 2 images")
for name in best:
    if name.startswith("PyTorch"):
        ratio(one if "1 thread" in name else "rankpool, 1 rank of 2 threads", name)
PY
