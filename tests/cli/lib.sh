# lib.sh - helpers of the command's tests; sourced by each theme as `. lib.sh BUILD_DIR`.
#
#   t "what is shown"          begins a test
#   run COMMAND ...            runs it with a time limit; expect_* look at what it did
#   skip "reason"              counts and names what was not tested
#   finish                     last line of a theme: prints the counts, exits
#
# shellcheck shell=bash disable=SC2034
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:?usage: $0 BUILD_DIR}" && pwd)
root=$(cd "$here/../.." && pwd)
rankpool=$build/bin/rankpool
model=$root/share/models/emoji-lumina2
theme=$(basename "$0" .sh)
work=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-$theme.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

if ! "$rankpool" --version >/dev/null; then
    echo "$theme: $rankpool does not run: build it first"
    exit 1
fi

# Nothing of the caller's may change what is tested; ranks share whatever cores there are.
for name in $(compgen -e | grep '^RANKPOOL_'); do unset "$name"; done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# The smallest job: 2 steps of 32x32 pixels, one thread.
tiny=(--steps 2 --width 32 --height 32 --threads 1)

n_passed=0 n_failed=0 n_skipped=0
test_name="" test_failed=no code=0

have_mpi() { "$rankpool" info --no-pool | grep -q 'MPI *yes' && command -v mpirun >/dev/null; }
is_sanitized() { grep -aq __asan_init "$build"/lib/librankpool.so; }

end_test() {
    [ -n "$test_name" ] || return 0
    if [ $test_failed = yes ]; then
        n_failed=$((n_failed + 1))
    else
        n_passed=$((n_passed + 1))
    fi
    test_name=""
}

t() {
    end_test
    test_name=$1
    test_failed=no
}

expect_sound() { # SCRIPT : its shell
    t "its shell is sound"
    run bash -n "$1"
    expect_exit 0
    if command -v shellcheck >/dev/null; then
        run shellcheck -x --severity=warning "$1"
        expect_exit 0
    fi
}

skip() {
    echo "  skipped: ${test_name:-$theme}: $1"
    n_skipped=$((n_skipped + 1))
    test_name=""
}

fail() {
    echo "  FAILED: $theme: $test_name: $1"
    if [ $test_failed = no ]; then
        echo "    command: ${ran:-}"
        echo "    exit: $code"
        sed 's/^/    stdout: /' stdout | head -5
        sed 's/^/    stderr: /' stderr | head -10
    fi
    test_failed=yes
}

run() {
    ran="$*"
    timeout -k 5 "${limit:-60}" "$@" >stdout 2>stderr </dev/null
    code=$?
}

# ranks N arguments ... : the command under mpirun
ranks() {
    local n=$1
    shift
    run mpirun -n "$n" "$rankpool" "$@"
}

expect_exit() {
    if [ "$1" = nonzero ]; then
        [ $code -ne 0 ] && [ $code -ne 124 ] && [ $code -ne 137 ] || fail "exit $code, not an error's"
    else
        [ "$code" = "$1" ] || fail "exit $code, should be $1"
    fi
}
expect_in_stderr() { local text; for text in "$@"; do grep -qF -- "$text" stderr || fail "stderr lacks: $text"; done; }
expect_in_stdout() { local text; for text in "$@"; do grep -qF -- "$text" stdout || fail "stdout lacks: $text"; done; }
expect_not_in_stderr() { local text; for text in "$@"; do grep -qF -- "$text" stderr && fail "stderr has: $text"; done; }
expect_silent() { [ ! -s "$1" ] || fail "$1 should be empty"; }
expect_file() { local file; for file in "$@"; do [ -s "$file" ] || fail "no file $file"; done; }
expect_no_file() { local file; for file in "$@"; do [ ! -e "$file" ] || fail "file $file should not be there"; done; }
expect_same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
expect_different() { cmp -s "$1" "$2" && fail "$1 and $2 are the same"; }
expect_lines() { # FILE N : counts the lines
    local n
    n=$(grep -c '' "$1")
    [ "$n" = "$2" ] || fail "$1 has $n lines, should have $2"
}
# What rankpool wrote into a picture: expect_setting FILE.png '"steps":2'
expect_setting() { grep -aqF -- "$2" "$1" || fail "$1 does not hold $2"; }
expect_no_parts() {
    local left
    left=$(find "${1:-.}" -name '*.part*')
    [ -z "$left" ] || fail "left behind: $left"
}

# A model folder that looks like the shipped one; its files are links, so replace, do not write.
copy_model() { cp -rs "$model" "$1" && chmod -R u+w "$1"; }
own_file() { # make a linked file a file of its own
    cp --remove-destination "$(readlink -f "$1")" "$1"
    chmod u+w "$1"
}

finish() {
    end_test
    echo "$theme: $n_passed passed, $n_failed failed, $n_skipped skipped"
    [ $n_failed -eq 0 ]
    exit
}
