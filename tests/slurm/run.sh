#!/usr/bin/env bash
# run.sh BUILD_DIR [PART...] - the job scripts of slurm/ on a real Slurm that lives for this test only.
#
# Parts are the functions test_* of slurm.sh, as "stop mpirun"; without any all but test_limit (3 minutes).
#
# For each part one slurmctld and four slurmd run on this machine, each in a network namespace with an address and
# a host name of its own, so that srun and mpirun behave as on four nodes. All of it is inside a namespace of
# processes and mounts: when the part ends, however it ends, nothing is left, and the next part has a Slurm of its
# own. Needs root. Exit 77: cannot run here.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?usage: $0 BUILD_DIR}" && pwd) || exit 1

skip() {
    echo "slurm: skipped: $1"
    exit 77
}
[ "$(id -u)" = 0 ] || skip "needs root, for network namespaces"
for program in slurmctld slurmd munged sbatch srun mpirun ip nsenter unshare; do
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || skip "$program is missing (packages: launch/packages.sh)"
done
! grep -aq __asan_init "$build"/lib/librankpool.so || skip "the build without sanitizers runs it"
unshare --pid --fork --mount --net --uts ip link add name probe type bridge 2>/dev/null ||
    skip "no namespaces for processes and networks here"

work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-slurm.XXXXXX") || exit 1
chmod 755 "$work"
inner=
end() { # with the first process of the namespace all others go
    [ -z "$inner" ] || kill -9 "$inner" 2>/dev/null
    wait
    [ -z "${KEEP:-}" ] || return # for a look at what is in $work/kept-*
    for _ in $(seq 25); do # they may still be writing
        rm -rf "$work" 2>/dev/null && return
        sleep 0.2
    done
}
trap end EXIT
trap 'exit 1' INT TERM HUP

run_part() { # PART
    # shellcheck disable=SC2086
    PATH=$PATH:/usr/sbin TMPDIR=$work unshare --pid --fork --kill-child --mount-proc --mount --net --uts \
        "$here/slurm.sh" "$build" $1 &
    inner=$!
    wait $inner
}

shift
[ $# -gt 0 ] || set -- "nodes srun" "nodes mpirun" "gpus srun" "gpus mpirun" "stop srun" "stop mpirun" array scaling cancel "dead srun"
failed=()
for part in "$@"; do
    began=$(date +%s)
    run_part "$part" || failed+=("$part")
    echo "  $part: $(($(date +%s) - began)) s"
done
echo "slurm: $(($# - ${#failed[@]})) of $# parts passed"
[ ${#failed[@]} -eq 0 ]
