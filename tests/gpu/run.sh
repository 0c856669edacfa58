#!/usr/bin/env bash
# run.sh [OPTION...] - build on a machine with a GPU and test all that needs one; a table at the end.
#
#   --only REGEX     run the rows whose name matches (the build is always brought up to date)
#   --build DIR      build folder (default build-gpu); logs go to DIR/gpu-tests
#   --no-build       take DIR as it is
#   --prefix DIR     packages unpacked there (DIR/usr/include, DIR/usr/lib/...), besides the system's
#   --wheels DIR     what diffusers needs and this machine's Python lacks (README.md): for the rows that
#                    compare with it, which are skipped where it cannot be imported
#   --cmake OPTION   one more option for cmake; may be given again
#   --limit SECONDS  longest time of one row (default 300)
#   --stop           stop at the first failure (default: --keep-going)
#   --list           print the rows' names
#
# Exit: 0 all ran well, 1 a row failed, 77 nothing could run (no GPU).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

only=. build=$root/build-gpu prefix="" wheels="" limit=300 stop=no list=no do_build=yes cmake_options=()
while [ $# -gt 0 ]; do
    case $1 in
    --only) only=${2:?--only needs a pattern}; shift ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --no-build) do_build=no ;;
    --prefix) prefix=$(cd "${2:?--prefix needs a folder}" && pwd); shift ;;
    --wheels) wheels=$(cd "${2:?--wheels needs a folder}" && pwd); shift ;;
    --cmake) cmake_options+=("${2:?--cmake needs an option}"); shift ;;
    --limit) limit=${2:?--limit needs seconds}; shift ;;
    --stop) stop=yes ;;
    --keep-going) stop=no ;;
    --list) list=yes ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$build/gpu-tests"
build=$(cd "$build" && pwd)
logs=$build/gpu-tests
rankpool=$build/bin/rankpool

# Nothing of the caller's may change what is tested; ranks share whatever cores there are.
for name in $(compgen -e | grep '^RANKPOOL_' || true); do unset "$name"; done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# ---- rows: functions that print to the log; fd 3 takes what the table shows, 77 skips
# shellcheck source-path=SCRIPTDIR source=rows.sh
. "$here/rows.sh"

have_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }

# Told to end, it tells what runs (go in rows.sh hears it) and kills who did not hear: a GPU must not stay busy.
running="" mark=""
trap '[ -z "$running" ] || { kill "$running" 2>/dev/null; sweep "$mark"; }; exit 143' TERM INT HUP

n_ok=0 n_failed=0 n_skipped=0 table=()
note() { # NAME RESULT NUMBER SECONDS
    table+=("$(printf '%-34s %-5s %-36s %7s' "$1" "$2" "$3" "$4")")
    printf '%s\n' "${table[-1]}"
}

# A row's processes, by the mark that their environment has; not all end when their parent is told to.
left_over() { grep -lsaF "RANKPOOL_GPU_ROW=$1" /proc/[0-9]*/environ | tr -dc '0-9\n'; }

sweep() { # MARK : true if some had to be killed: they would keep the GPU busy, and the next row's times wrong
    local pids
    for _ in $(seq 20); do
        mapfile -t pids < <(left_over "$1")
        [ ${#pids[@]} -gt 0 ] || return 1
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true
}

row() { # NAME FUNCTION ARGUMENT...
    local name=$1 begin code number log
    mark=$$.$RANDOM
    shift
    [[ $name =~ $only ]] || [ "$name" = build ] || return 0
    if [ $list = yes ]; then
        echo "$name"
        return 0
    fi
    if [ $gpu = no ]; then
        n_skipped=$((n_skipped + 1))
        note "$name" skip "no GPU" -
        return 0
    fi
    log=$logs/${name//[^A-Za-z0-9]/_}
    begin=$(date +%s.%N)
    set +e
    (set -e; export RANKPOOL_GPU_ROW=$mark; "$@") >"$log.log" 2>&1 3>"$log.number" &
    running=$!
    wait $running
    code=$?
    running=""
    ! sweep "$mark" || [ $code -ne 0 ] || { code=1; echo "left a process behind" >"$log.number"; }
    set -e
    number=$(head -c 36 "$log.number" | head -1)
    seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    case $code in
    0) n_ok=$((n_ok + 1)); note "$name" ok "$number" "$seconds" ;;
    77) n_skipped=$((n_skipped + 1)); note "$name" skip "$number" "$seconds" ;;
    *)
        n_failed=$((n_failed + 1))
        note "$name" FAIL "${number:-exit $code}" "$seconds"
        tail -n 25 "$log.log" | sed 's/^/    /'
        [ $stop = no ] || finish
        ;;
    esac
}

finish() {
    printf '\n%-34s %-5s %-36s %7s\n' row result number seconds
    printf '%s\n' "${table[@]}"
    echo "$n_ok ok, $n_failed failed, $n_skipped skipped; logs in $logs"
    [ $n_failed -eq 0 ] || exit 1
    [ $n_ok -gt 0 ] || exit 77
    exit 0
}

gpu=no
if [ $list = no ]; then
    ! have_gpu || gpu=yes
    [ $gpu = no ] || nvidia-smi -L
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-gpu.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

if [ $do_build = yes ]; then
    row build build_all
    [ $n_failed -eq 0 ] || finish
fi
all_rows
[ $list = yes ] || finish
