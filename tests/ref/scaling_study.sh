#!/usr/bin/env bash
# scaling_study.sh [BUILD [OUT]] - the scaling study of the README: the shipped model on 1, 2 and 4 ranks, each
# on a node of its own (network namespaces of this machine, tests/nodes/net.sh; needs root), predicted and measured.
#
# First with 1 Gbit/s between the nodes, then without a limit; strong (4 images) and weak (1 image a rank) each.
# Leaves OUT/1gbit-strong, OUT/1gbit-weak, OUT/fast-strong and OUT/fast-weak, and OUT/readme.md: all tables, short.
# Nothing else should run on the machine: the ranks share its cores, and predictions count on all of them.
#
#   REPEAT (default 3) jobs of a run, ROUNDS (default 5) runs taking turns, of which the fastest counts,
#   STEPS (default 30)
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${1:-build}")
out=$(realpath -m "${2:-scaling-study}")
cores=$(nproc) latency_us=35 # a message between two namespaces, MPI over TCP

net_dir=$(mktemp -d)
# shellcheck source=../nodes/net.sh
. tests/nodes/net.sh
reason=$(net_can) || { echo "scaling_study.sh: $reason" >&2; exit 1; }
trap 'net_down; rm -rf "$net_dir"' EXIT
net_up 4

# start N -- ARGUMENT... : rankpool-run on node1, a rank on each of the first N nodes
cat >"$net_dir/start" <<TEXT
#!/usr/bin/env bash
. $PWD/tests/nodes/net.sh
net_name=$net_name net_dir=$net_dir
n=\$1
shift 2
hosts=\$(seq -s , -f node%g "\$n")
net_on node1 $PWD/launch/rankpool-run -n "\$n" --hosts "\$hosts" --rsh $net_dir/rsh --interface eth0 -- "\$@"
TEXT
chmod +x "$net_dir/start"

limit() { # RATE or nothing, on what every node sends
    local i
    for i in 1 2 3 4; do
        tc -n "$net_name-node$i" qdisc del dev eth0 root 2>/dev/null || true
        [ -z "$1" ] || tc -n "$net_name-node$i" qdisc add dev eth0 root tbf rate "$1" burst 128kb latency 50ms
    done
}

study() { # NAME GBIT MODE IMAGES
    launch/scaling --out "$out/$1" --mode "$3" --images "$4" --ranks 1,2,4 --repeat "${REPEAT:-3}" --rounds "${ROUNDS:-5}" --best-round \
        --rankpool "$build/bin/rankpool" --launcher "$net_dir/start {n} --" \
        --predict "--cores $cores --latency-us $latency_us --gbit $2" -- --threads 1 --steps "${STEPS:-30}"
}

mkdir -p "$out"
limit 1gbit
study 1gbit-strong 1 strong 4
study 1gbit-weak 1 weak 1
limit ""
study fast-strong 0 strong 4
study fast-weak 0 weak 1

# Each scaling.md has two tables: measured, and predicted against measured.
rows() { # NAME TABLE
    awk -v table="$2" '/^\|/ { if (!in_table) n++; in_table = 1; if (n == table) print; next } { in_table = 0 }' "$out/$1/scaling.md"
}
for name in 1gbit-strong 1gbit-weak fast-strong fast-weak; do
    echo "$name: measured; predicted"
    echo
    rows $name 1
    echo
    rows $name 2
    echo
done | tee "$out/readme.md"
