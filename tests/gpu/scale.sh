#!/usr/bin/env bash
# scale.sh [OPTION...] - what several GPUs of one host are worth: numbers, one table, one plot.
#
#   --only REGEX      sections whose name matches (--list prints them)
#   --build DIR       where run.sh has built rankpool (default build-gpu)
#   --prefix DIR      packages unpacked there, besides the system's, as for run.sh
#   --out DIR         results.jsonl, table.md, images.svg and log.txt go there (default DIR of --build, scale)
#   --gpus N          take N of the GPUs (default: all)
#   --precision LIST  "bf16 fp8" (default), or one of them
#   --steps N         steps of a job (default 30)
#   --repeat N        timed jobs of a row, after one to warm up (default 3)
#   --size PX         width and height (default 1024)
#   --limit SECONDS   longest time of one section (default 300)
#   --total SECONDS   longest time of all; what does not fit any more is skipped
#   --python PROGRAM  default python3
#   --wheels DIR      what diffusers needs and this machine's Python lacks (README.md), for peer and start
#   --model DIR       full-size checkpoint for section start; made there when it is absent
#   --eager           peer without torch.compile
#   --try             does the script work? Small sizes, few steps, on one GPU that two ranks share; the times
#                     mean nothing
#   --list            print the sections' names
#
# Model: the sizes of Lumina-Image-2.0 with random weights, 128 caption tokens in each branch, guidance 4.
# Exit: 0 all ran well, 1 a section failed (the others have run), 77 nothing could run (no GPU).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
command_line="$0 $*"

only=. build=$root/build-gpu prefix="" out="" gpus="" precisions="bf16 fp8" steps=30 repeat=3 size=1024 limit=300
total="" python=python3 wheels="" model="" eager=() try=no list=no
while [ $# -gt 0 ]; do
    case $1 in
    --only) only=${2:?--only needs a pattern}; shift ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --prefix) prefix=$(cd "${2:?--prefix needs a folder}" && pwd); shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    --gpus) gpus=${2:?--gpus needs a number}; shift ;;
    --precision) precisions=${2:?--precision needs names}; shift ;;
    --steps) steps=${2:?--steps needs a number}; shift ;;
    --repeat) repeat=${2:?--repeat needs a number}; shift ;;
    --size) size=${2:?--size needs pixels}; shift ;;
    --limit) limit=${2:?--limit needs seconds}; shift ;;
    --total) total=${2:?--total needs seconds}; shift ;;
    --python) python=${2:?--python needs a program}; shift ;;
    --wheels) wheels=$(cd "${2:?--wheels needs a folder}" && pwd); shift ;;
    --model) model=$(realpath -m "${2:?--model needs a folder}"); shift ;;
    --eager) eager=(--eager) ;;
    --try) try=yes ;;
    --list) list=yes ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    esac
    shift
done

if [ $list = no ]; then
    n_gpus=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true)
    [ "$n_gpus" -gt 0 ] || { echo "scale.sh: no GPU here, nothing was measured"; exit 77; }
    gpus=${gpus:-$n_gpus}
    others=$(nvidia-smi --query-compute-apps=pid --format=csv,noheader 2>/dev/null | grep -c '[0-9]' || true)
    [ "$others" = 0 ] || echo "scale.sh: $others other processes use a GPU here: the times are not its own" >&2
    if ! [[ $gpus =~ ^[1-9][0-9]*$ ]] || [ "$gpus" -gt "$n_gpus" ]; then
        echo "--gpus $gpus: there are $n_gpus" >&2
        exit 2
    fi
    build=$(cd "$build" && pwd)
    rankpool=$build/bin/rankpool
    [ -x "$rankpool" ] || { echo "no program $rankpool: tests/gpu/run.sh --only build makes it" >&2; exit 2; }
    out=${out:-$build/scale}
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    results=$out/results.jsonl log=$out/log.txt
    : >"$results"
    : >"$log"
fi

# Numbers of ranks; with --try two ranks are tried on whatever there is.
counts=(1)
for n in 2 4 8; do
    [ "${gpus:-1}" -lt $n ] || counts+=("$n")
done
if [ $try = yes ]; then
    counts=(1 2) steps=4 repeat=1 size=256
    echo "scale.sh --try: a trial of the script with $steps steps at ${size}x$size; its times mean nothing"
fi
most=${counts[-1]}

# ---- the same surroundings as in run.sh
for name in $(compgen -e | grep '^RANKPOOL_' || true); do unset "$name"; done
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
export OMPI_MCA_btl_vader_single_copy_mechanism=none
export NCCL_NVLS_ENABLE=0 # multicast cannot be had in containers
for lib in ${prefix:+"$prefix"/usr/lib/*-linux-gnu "$prefix"/usr/lib}; do
    [ ! -d "$lib" ] || export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done

# shellcheck source-path=SCRIPTDIR source=scale_rows.sh
. "$here/scale_rows.sh"

n_ok=0 n_failed=0 n_skipped=0
note() { # NAME RESULT SECONDS WHY
    printf '%-10s %-5s %6s s  %s\n' "$1" "$2" "$3" "$4"
    emit "{\"section\": \"run\", \"name\": \"$1\", \"result\": \"$2\", \"seconds\": $3}"
}

section() { # NAME : runs the function of that name
    local begin=$SECONDS code=0 first left=$limit
    [[ $1 =~ $only ]] || return 0
    if [ $list = yes ]; then
        echo "$1"
        return 0
    fi
    if [ -n "$total" ] && [ $((total - SECONDS)) -lt "$left" ]; then
        left=$((total - SECONDS))
    fi
    if [ "$left" -lt 5 ]; then
        n_skipped=$((n_skipped + 1))
        note "$1" skip 0 "no time left"
        return 0
    fi
    deadline=$((SECONDS + left))
    first=$(($(wc -l <"$log") + 1))
    echo "== $1" >>"$log"
    : >"$work/why"
    set +e
    (set -e; "$1") >>"$log" 2>&1
    code=$?
    set -e
    case $code in
    0) n_ok=$((n_ok + 1)); note "$1" ok $((SECONDS - begin)) "" ;;
    77) n_skipped=$((n_skipped + 1)); note "$1" skip $((SECONDS - begin)) "$(cat "$work/why")" ;;
    *)
        n_failed=$((n_failed + 1))
        note "$1" FAIL $((SECONDS - begin)) "exit $code $(cat "$work/why")"
        tail -n +"$first" "$log" | tail -n 25 | sed 's/^/    /'
        ;;
    esac
}

if [ $list = no ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-scale.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    describe_machine "$command_line"
fi
for name in wire image images same residency death peer start; do section $name; done
[ $list = no ] || exit 0

echo
"$python" "$here/scale_table.py" "$results" --svg "$out/images.svg" | tee "$out/table.md"
echo
echo "$n_ok ok, $n_failed failed, $n_skipped skipped; all of it in $out"
[ $n_failed -eq 0 ] || exit 1
[ $n_ok -gt 0 ] || exit 77
