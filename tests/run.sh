#!/usr/bin/env bash
# run.sh [--sanitize] [--fuzz SECONDS] [--cuda | --no-cuda] - install what the tests need, build, run all of them.
#
#   --sanitize       then build again with address and undefined-behaviour sanitizers, and run again
#   --fuzz SECONDS   seconds for each fuzz target (default 5; 0 skips them)
#   --cuda           the build for GPUs must work; a toolkit that is missing is fetched however long it takes
#   --no-cuda        skip that build
#
# The build for GPUs needs a CUDA toolkit and no GPU. Where there is none, cuda_toolkit.sh fetches one
# (1.1 GB) if that takes less than three minutes; else the build is skipped, and the end says so.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=../launch/packages.sh
. launch/packages.sh
# shellcheck source=../launch/cuda.sh
. launch/cuda.sh

sanitize=0 fuzz=5 cuda=auto skipped=() builder=
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) sanitize=1 ;;
    --fuzz) fuzz=${2:?--fuzz needs seconds}; shift ;;
    --cuda) cuda=on ;;
    --no-cuda) cuda=off ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    esac
    shift
done

# shellcheck disable=SC2086
rp_install $RP_BUILD_PACKAGES $RP_TEST_PACKAGES

build() { # build BUILD-FOLDER CMAKE-OPTION...
    local build=$1
    shift
    cmake -S . -B "$build" -G Ninja -Wno-dev -DRP_TESTS=ON -DRP_WERROR=ON "$@" >"$build.log" 2>&1 ||
        { cat "$build.log"; return 1; }
    cmake --build "$build" >>"$build.log" 2>&1 || { tail -n 60 "$build.log"; return 1; }
}

run_tests() { # BUILD-FOLDER CTEST-OPTION...
    (cd "$1" && ctest -j "$(nproc)" --output-on-failure --no-tests=error "${@:2}")
}

# ---- the build for GPUs, and the tests that need one

find_toolkit() { # sets nvcc
    local limit=180 why=build-cuda-toolkit.why
    [ $cuda != on ] || limit=0
    if ! nvcc=$(tests/cuda_toolkit.sh build-cuda-toolkit 2>/dev/null); then
        rp_install python3-pip || true
        echo "fetching a CUDA toolkit"
        nvcc=$(tests/cuda_toolkit.sh --fetch $limit build-cuda-toolkit 2>$why) || {
            [ $cuda != on ] || { echo "no CUDA toolkit: $(tail -n 1 $why)"; exit 1; }
            skipped+=("the build for GPUs, no CUDA toolkit: $(tail -n 1 $why)")
            return 1
        }
    fi
}

build_cuda() {
    build build-cuda -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$nvcc" "-DCMAKE_CUDA_ARCHITECTURES=80-real;90a-real;120-real"
    echo "compiled and linked for sm_80, sm_90a and sm_120 with CUDA $(rp_nvcc_version "$nvcc")"
}

# Beside the tests on a Slurm, which mostly wait; it takes only the time that they leave.
begin_build_cuda() { # sets builder
    set -m # a process group of its own, so that all of it ends with this script
    { renice -n 19 -p $BASHPID; build_cuda; } >build-cuda.result 2>&1 &
    builder=$!
    set +m
    trap 'kill -- -$builder 2>/dev/null' EXIT
}

end_build_cuda() {
    local code=0
    wait "$builder" || code=$?
    trap - EXIT
    [ $code -eq 0 ] || { cat build-cuda.result; return 1; }
    tail -n 1 build-cuda.result
}

# Quiet unless one fails: where there is no GPU all skip, and that is no result to end on.
ctest_gpu() {
    local log=build-cuda.ctest.log names n
    (cd build-cuda && ctest -L gpu --output-on-failure --no-tests=error) >$log || { cat $log; return 1; }
    names=$(sed -n 's/.* - \(.*\) (Skipped)$/\1/p' $log | xargs)
    n=$(wc -w <<<"$names")
    echo "ctest -L gpu: $(grep -cE '\.+ +Passed ' $log || true) ran, $n skipped: ${names:-none}"
    [ "$n" -eq 0 ] || skipped+=("$n tests of ctest -L gpu: $n_gpus GPUs answer")
}

rows_gpu() { # BUILD-FOLDER, or nothing where none was made
    local names n code=0
    if [ -n "${1:-}" ] && [ "$n_gpus" -gt 0 ]; then
        tests/gpu/run.sh --build "$1" --no-build || code=$?
        [ $code -eq 0 ] || [ $code -eq 77 ]
        return
    fi
    names=$(tests/gpu/run.sh --build build-gpu --no-build --list)
    n=$(wc -l <<<"$names")
    echo "tests/gpu/run.sh: 0 ran, $n skipped: $(paste -sd ';' - <<<"$names" | sed 's/;/; /g')"
    skipped+=("$n rows of tests/gpu/run.sh: $n_gpus GPUs answer")
}

echo "== build and test"
build build-test
n_gpus=$(rp_gpu_count)
if [ $cuda != off ] && find_toolkit; then
    begin_build_cuda
fi
run_tests build-test -L slurm --no-tests=ignore
[ -z "$builder" ] || wait "$builder" || end_build_cuda # the others measure times, or need all cores
run_tests build-test -LE slurm
echo "== build for GPUs"
if [ -n "$builder" ]; then
    end_build_cuda
    run_tests build-cuda -R '^cli_no_driver$'
    ctest_gpu
    rows_gpu build-cuda
else
    [ $cuda != off ] || skipped+=("the build for GPUs: --no-cuda")
    rows_gpu
fi
if [ "$sanitize" -eq 1 ]; then
    echo "== the same under AddressSanitizer and UndefinedBehaviorSanitizer"
    build build-sanitize -DRP_SANITIZE=ON
    run_tests build-sanitize
fi
if [ "$fuzz" -gt 0 ]; then
    echo "== fuzz targets, $fuzz s each"
    tests/fuzz/run.sh "$fuzz"
fi
for what in "${skipped[@]}"; do echo "skipped: $what"; done
echo "all tests passed"
