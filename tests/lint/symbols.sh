#!/usr/bin/env bash
# symbols.sh BUILD_DIR - librankpool.so exports the functions of rankpool.h, and nothing else.
set -u
library=${1:?usage: symbols.sh BUILD_DIR}/lib/librankpool.so
header=$(dirname "$0")/../../include/rankpool/rankpool.h
[ -e "$library" ] || { echo "$library is not built"; exit 1; }

declared=$(awk '/^RP_API/ { on = 1 } on { print } /;/ { on = 0 }' "$header" | grep -oE 'rp_[a-z0-9_]+\(' |
    tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sed 's/@.*//' | sort -u)
if [ -z "$declared" ] || [ -z "$exported" ]; then
    echo "no symbols found"
    exit 1
fi

extra=$(comm -13 <(echo "$declared") <(echo "$exported"))
missing=$(comm -23 <(echo "$declared") <(echo "$exported"))
if [ -n "$extra" ]; then
    echo "exported but not in rankpool.h:"
    echo "$extra" | c++filt | sed 's/^/  /' | head -20
fi
if [ -n "$missing" ]; then
    echo "in rankpool.h but not exported:"
    echo "$missing" | awk '{ print "  " $0 }'
fi
[ -z "$extra$missing" ] || exit 1
echo "symbols: $(echo "$declared" | wc -l) functions, all of rankpool.h"
