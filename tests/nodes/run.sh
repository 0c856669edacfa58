#!/usr/bin/env bash
# run.sh BUILD_DIR - rankpool-run on one node and on four, with plain mpirun. The nodes are network namespaces
# of this machine with host names of their own (net.sh). Needs root; else skipped, exit code 77.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?usage: run.sh BUILD_DIR}" && pwd)
launch=$here/../../launch/rankpool-run
# shellcheck source=net.sh
. "$here/net.sh"

command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
"$build/bin/rankpool" info --no-pool | grep -q 'MPI *yes' || { echo "skipped: a build without MPI"; exit 77; }
why=$(net_can) || { echo "skipped: $why"; exit 77; }

net_dir=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-nodes.XXXXXX")
trap 'net_down; rm -rf "$net_dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# Nothing of the caller's: rankpool-run's own settings are what is tested. Left over session folders go with net_dir.
for name in $(compgen -e | grep -E '^(RANKPOOL|OMPI_|PRTE_|PMIX_|NCCL_|SLURM_)'); do unset "$name"; done
export RANKPOOL=$build/bin/rankpool TMPDIR=$net_dir
failures=0 name='' code=0

fail() {
    echo "FAILED: $name: $1"
    sed 's/^/    | /' "$net_dir/log" | tail -n 25
    failures=$((failures + 1))
}
says() { grep -qE -- "$1" "$net_dir/log" || fail "no line \"$1\""; }

# test NAME rankpool-run-words ... : from node1; sets code
run() {
    name=$1
    shift
    (net_on node1 timeout -k 5 60 "$launch" --rsh "$net_dir/rsh" "$@") >"$net_dir/log" 2>&1 </dev/null
    code=$?
}
passed() { [ $code -eq 0 ] || fail "exit code $code"; }

net_up 4 || exit 1
small=(--prompt "red heart" --seed 3 --images 2 --steps 2 --width 32 --height 32 --threads 1)
"$RANKPOOL" sample "${small[@]}" --out "$net_dir/alone.png" >"$net_dir/log" 2>&1 || fail "one rank without a launcher"
same_pictures() { # FOLDER-PREFIX
    local i
    for i in 0000 0001; do
        cmp "$net_dir/alone-$i.png" "$net_dir/$1-$i.png" >>"$net_dir/log" 2>&1 || fail "picture $i is another one"
    done
}

run "one node, two ranks" -n 2 -- sample "${small[@]}" --out "$net_dir/one.png"
passed
same_pictures one

run "four nodes, who is where" --hosts node1:2,node2:2,node3:2,node4:2 -- info --threads 1
passed
for i in $(seq 0 7); do says "^ *$i +node$((i / 2 + 1)) "; done

run "four nodes, eight ranks" --print -n 8 --hosts node1,node2,node3,node4 -- sample "${small[@]}" --out "$net_dir/four.png"
passed
same_pictures four
says 'oob_tcp_if_include=10.211.0.0/24' # the network between them was found

printf 'node%s slots=1\n' 1 2 3 4 >"$net_dir/hostfile"
run "four nodes by hostfile" --interface eth0 --hostfile "$net_dir/hostfile" -- sample "${small[@]}" --out "$net_dir/file.png"
passed
same_pictures file

run "the program's exit code" --hosts node1,node2 -- sample --no-such-option
[ $code -eq 2 ] || fail "exit code $code, not 2"

run "a node that is not there" --hosts node1,node9 -- info
case $code in 0 | 124 | 137) fail "exit code $code" ;; esac

# ---- a node dies, its cable is taken out, or the user ends the job, in the middle of a batch

for i in $(seq 400); do echo "{\"seed\": $i}"; done >"$net_dir/jobs.jsonl"
in_a_batch() { # NAME COMMAND ... : sets code and ms from COMMAND to the end
    name=$1
    shift
    rm -rf "$net_dir/out"
    net_on node1 "$launch" --rsh "$net_dir/rsh" --hosts node1,node2,node3,node4 -- batch "$net_dir/jobs.jsonl" \
        --out-dir "$net_dir/out" --steps 4 --width 64 --height 64 --threads 1 >"$net_dir/log" 2>&1 </dev/null &
    job=$!
    for _ in $(seq 400); do
        [ -e "$net_dir/out/0002.png" ] && break
        sleep 0.05
    done
    [ -e "$net_dir/out/0002.png" ] || fail "the batch did not begin"
    local began
    began=$(date +%s%3N)
    "$@"
    for _ in $(seq 600); do
        kill -0 $job 2>/dev/null || break
        sleep 0.05
    done
    kill -0 $job 2>/dev/null && fail "still running after 30 s" && kill -9 $job
    wait $job
    code=$?
    ms=$(($(date +%s%3N) - began))
    [ $code -ne 0 ] || fail "exit code 0"
    for picture in "$net_dir"/out/*.png; do
        tail -c 12 "$picture" | grep -qa IEND || fail "$picture is cut"
    done
    echo "$name: exit code $code after $ms ms"
}
nothing_left_on() {
    local node left
    for node in "$@"; do
        for _ in $(seq 20); do
            left=$(ip netns pids "$net_name-$node" | tr '\n' ' ')
            [ -z "$left" ] && continue 2
            sleep 0.1
        done
        fail "processes left on $node: $left"
    done
}

in_a_batch "a node dies" net_kill node3
[ "$ms" -lt 10000 ] || fail "took $ms ms"
says 'node3'
says 'has gone; the job ends here|lost communication with a remote daemon'
nothing_left_on node1 node2 node3 node4

# shellcheck disable=SC2317
end_job() { kill -s TERM "$job"; }
in_a_batch "the user ends it" end_job
[ $code -eq 143 ] || fail "exit code $code, not 143"
[ "$ms" -lt 10000 ] || fail "took $ms ms"
nothing_left_on node1 node2 node3 node4

# Last: mpirun itself never notices. What is left on the node that was cut off, net_down removes.
in_a_batch "a cable is taken out" net_cut node3
[ $code -eq 70 ] || fail "exit code $code, not 70"
[ "$ms" -lt 25000 ] || fail "took $ms ms"
says 'rank 2 \(host node3, pid [0-9]+\) has gone; the job ends here'
says 'mpirun still waits for a host that does not answer'
nothing_left_on node1 node2 node4

[ $failures -eq 0 ] && echo "all passed"
exit $((failures != 0))
