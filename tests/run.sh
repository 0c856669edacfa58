#!/usr/bin/env bash
# run.sh [--sanitize] [--fuzz SECONDS] - install what the tests need, build, run all of them.
#
#   --sanitize       then build again with address and undefined-behaviour sanitizers, and run again
#   --fuzz SECONDS   seconds for each fuzz target (default 5; 0 skips them)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=../launch/packages.sh
. launch/packages.sh

sanitize=0 fuzz=5
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) sanitize=1 ;;
    --fuzz) fuzz=${2:?--fuzz needs seconds}; shift ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    esac
    shift
done

# shellcheck disable=SC2086
rp_install $RP_BUILD_PACKAGES $RP_TEST_PACKAGES

run() { # run BUILD-FOLDER CMAKE-OPTION...
    local build=$1
    shift
    cmake -S . -B "$build" -G Ninja -Wno-dev -DRP_TESTS=ON -DRP_WERROR=ON "$@" >"$build.log" 2>&1 ||
        { cat "$build.log"; return 1; }
    cmake --build "$build" >>"$build.log" 2>&1 || { tail -n 60 "$build.log"; return 1; }
    (cd "$build" && ctest --output-on-failure --no-tests=error)
}

echo "== build and test"
run build-test
if [ "$sanitize" -eq 1 ]; then
    echo "== the same under AddressSanitizer and UndefinedBehaviorSanitizer"
    run build-sanitize -DRP_SANITIZE=ON
fi
if [ "$fuzz" -gt 0 ]; then
    echo "== fuzz targets, $fuzz s each"
    tests/fuzz/run.sh "$fuzz"
fi
echo "all tests passed"
