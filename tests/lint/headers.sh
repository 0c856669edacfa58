#!/usr/bin/env bash
# headers.sh - every header compiles alone and twice: C11 for all, C++17 too for the public ones.
set -u
cd "$(dirname "$0")/../.." || exit 1
cc=${CC:-gcc}
cxx=${CXX:-g++}
bad=0
warnings="-Wall -Wextra -Werror -Wshadow"

try() { # what header command...
    local what=$1 header=$2
    shift 2
    if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" | "$@" -fsyntax-only -; then
        echo "$header does not stand alone as $what"
        bad=$((bad + 1))
    fi
}

for header in include/rankpool/*.h; do
    name=rankpool/$(basename "$header")
    # shellcheck disable=SC2086
    try "strict C11" "$name" "$cc" -x c -std=c11 -pedantic $warnings -Wstrict-prototypes -Iinclude
    # shellcheck disable=SC2086
    try "C++17" "$name" "$cxx" -x c++ -std=c++17 -pedantic $warnings -Iinclude
done
for header in src/*/*.h src/*/*/*.h; do
    [ -e "$header" ] || continue
    # shellcheck disable=SC2086
    try C11 "${header#src/}" "$cc" -x c -std=c11 -D_GNU_SOURCE $warnings -Wstrict-prototypes -Iinclude -Isrc
done

[ $bad -eq 0 ] || exit 1
echo "headers: all compile alone"
