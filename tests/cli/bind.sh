#!/usr/bin/env bash
# bind.sh - which cores a rank has, and the table that says so.
. "$(dirname "$0")/lib.sh"
head_line='^  rank  host +NUMA +threads  may run on +NIC +device$'

# "may run on" of rank N, without the number of cores: "0-3"
cores_of() { sed -nE "s/^ +$1  .* cores? \(([^)]*)\).*/\1/p" stdout; }

t "info: one table, a line for each rank"
run "$rankpool" info
expect_exit 0
grep -qE "$head_line" stdout || fail "no table"
[ "$(cores_of 0)" = "$(sed -nE 's/.*which this process may use .*\((.*)\)/\1/p' stdout)" ] ||
    fail "a rank alone does not have all cores of its mask"

t "an unknown way to bind is refused"
run "$rankpool" info --bind socket
expect_exit 2
expect_in_stderr "bind: 'socket'" "auto|none|print"

t "one rank on a CPU prints no table, unless --bind print"
run "$rankpool" sample "${tiny[@]}" --out a.png
expect_exit 0
expect_silent stderr
run "$rankpool" sample "${tiny[@]}" --out a.png --overwrite --bind print
expect_exit 0
grep -qE "$head_line" stderr || fail "no table"
expect_lines stderr 2

if have_mpi; then
    t "ranks that share a mask split its cores"
    ranks 2 info
    expect_exit 0
    n=$(sed -nE 's/.*which this process may use ([0-9]+) .*/\1/p' stdout)
    mask=$(sed -nE 's/.*which this process may use .*\((.*)\)/\1/p' stdout)
    if [ "${n:-0}" -ge 2 ]; then
        [ -n "$(cores_of 0)" ] && [ "$(cores_of 0)" != "$(cores_of 1)" ] || fail "both ranks have $(cores_of 0)"
    else
        skip "one core"
    fi

    t "--bind none, more ranks than cores, more threads than cores: the launcher's mask stays"
    ranks 2 info --bind none
    expect_exit 0
    [ "$(cores_of 0)" = "$mask" ] && [ "$(cores_of 1)" = "$mask" ] || fail "not $mask"
    ranks 2 info --threads 512
    [ "$(cores_of 1)" = "$mask" ] || fail "not $mask"
    if [ "${n:-9}" -lt 4 ]; then
        ranks 4 info
        [ "$(cores_of 0)" = "$mask" ] && [ "$(cores_of 3)" = "$mask" ] || fail "not $mask"
    fi

    t "a run of several ranks begins with the table, unless quiet"
    ranks 2 sample "${tiny[@]}" --images 2 --seed 3 --out b.png
    expect_exit 0
    head -1 stderr | grep -qE "$head_line" || fail "no table"
    expect_lines stderr 3
    ranks 2 sample "${tiny[@]}" --images 2 --seed 3 --out c.png --quiet --bind none
    expect_exit 0
    expect_silent stderr
    expect_same b-0001.png c-0001.png
    for command in "batch jobs.jsonl --out-dir out" "bench --repeat 1 --warmup 0"; do
        echo '{"prompt": "sun"}' >jobs.jsonl
        # shellcheck disable=SC2086 # words are meant
        ranks 2 $command "${tiny[@]}"
        expect_exit 0
        grep -cE "$head_line" stderr | grep -qx 1 || fail "$command: not one table"
    done
else
    skip "no MPI"
fi
finish
