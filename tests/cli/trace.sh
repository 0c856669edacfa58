#!/usr/bin/env bash
# trace.sh - --trace: what every rank did when, on one clock, for Perfetto.
. "$(dirname "$0")/lib.sh"
small=(--width 32 --height 32 --threads 1 --steps 3 --images 2)
have_python=$(command -v python3)

cat >check.py <<'PY' # FILE N_RANKS: the trace of a job of `small`
import json, sys
trace, n_ranks = json.load(open(sys.argv[1])), int(sys.argv[2])
spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
named = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
assert named == {r: f"rank {r}" for r in range(n_ranks)}, named
assert {e["tid"] for e in spans} == set(range(n_ranks))
assert min(e["ts"] for e in spans) == 0 and all(e["dur"] >= 0 for e in spans)
listed = {"scatter", "unit", "gather", "merge", "sample", "decode", "wait"}
assert {e["name"] for e in spans} == listed, {e["name"] for e in spans}
for rank in range(n_ranks):
    for name in listed:
        row = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if (e["tid"], e["name"]) == (rank, name))
        assert all(b[0] >= a[1] - 0.002 for a, b in zip(row, row[1:])), (rank, name)
of = lambda name, **args: [e for e in spans if e["name"] == name and args.items() <= e["args"].items()]
for step in range(3):
    assert len(of("sample", step=step)) == len(of("merge", step=step)) == 1
    assert sorted(e["args"]["unit"] for e in of("unit", step=step)) == [0, 1, 2, 3]
    # on one clock a unit of any rank is inside its step on rank 0; clocks of busy ranks are read late
    whole = of("sample", step=step)[0]
    for e in of("unit", step=step):
        early, late = whole["ts"] - e["ts"], e["ts"] + e["dur"] - whole["ts"] - whole["dur"]
        assert max(early, late) < (0.002 if e["tid"] == 0 else 50000), (step, e, whole)
assert sorted(e["args"]["image"] for e in of("decode")) == [0, 1]
hosts = {e["pid"] for e in spans}
assert hosts == {0}, hosts
PY
check() {
    [ -n "$have_python" ] || return 0
    run python3 check.py "$1" "$2"
    expect_exit 0
}

t "one rank"
run "$rankpool" sample "${small[@]}" --out one.png --trace one.json
expect_exit 0
expect_silent stderr
expect_file one.json
check one.json 1

t "a trace that exists is kept, unless --overwrite; the picture does not depend on it"
cp one.json before.json
run "$rankpool" sample "${small[@]}" --out again.png --trace one.json
expect_exit 1
expect_in_stderr "one.json exists" "--overwrite"
expect_same one.json before.json
[ ! -e again-0000.png ] || fail "the job ran all the same"
run "$rankpool" sample "${small[@]}" --out plain.png
expect_exit 0
expect_same plain-0000.png one-0000.png
run "$rankpool" sample "${small[@]}" --out one.png --trace one.json --overwrite
expect_exit 0
check one.json 1

t "a folder that is not there is named before any work"
run "$rankpool" sample "${small[@]}" --out none.png --trace missing/one.json
expect_exit 1
expect_in_stderr "missing"
[ ! -e none-0000.png ] || fail "the job ran all the same"

t "two ranks, and the same picture"
if have_mpi; then
    ranks 2 sample "${small[@]}" --out two.png --trace two.json
    expect_exit 0
    check two.json 2
    expect_same two-0000.png one-0000.png
else
    skip "no MPI"
fi

t "a pool that is torn down at every step"
if have_mpi; then
    ranks 2 sample "${small[@]}" --out step.png --trace step.json --residency step
    expect_exit 0
    check step.json 2
else
    skip "no MPI"
fi

t "batch: a trace for the lines that name one, of that job alone"
{
    echo '{"prompt": "sun", "images": 2, "trace": "a.json"}'
    echo '{"prompt": "moon"}'
    echo '{"prompt": "star", "images": 2, "trace": "b.json"}'
} >jobs.jsonl
if have_mpi; then
    ranks 2 batch jobs.jsonl --out-dir traces --width 32 --height 32 --threads 1 --steps 3
else
    run "$rankpool" batch jobs.jsonl --out-dir traces --width 32 --height 32 --threads 1 --steps 3
fi
expect_exit 0
have_mpi && n=2 || n=1
check traces/a.json $n
check traces/b.json $n
[ "$(find traces -name '*.json' | wc -l)" = 2 ] || fail "other traces were written"

t "bench: the trace of the last job"
run "$rankpool" bench "${small[@]}" --repeat 2 --trace bench.json
expect_exit 0
check bench.json 1
finish
