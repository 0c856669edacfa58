#!/usr/bin/env bash
# sizes.sh - files over 800 lines and functions over 100 fail; files over 400 and functions over 50 are
# listed. A function begins with a brace in column 0 and ends with one.
set -u
cd "$(dirname "$0")/../.." || exit 1
mapfile -t files < <(find src include tests -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' | sort)

awk '
FNR == 1 { if (NR > 1) file_done(); name = FILENAME; inside = 0; before = "" }
{ n = FNR }
/^\{/ && !inside { inside = 1; start = FNR; who = before }
/^\}/ && inside {
    inside = 0
    length_now = FNR - start + 1
    lengths[++n_functions] = length_now
    sub(/\(.*/, "", who); sub(/.*[ *]/, "", who)
    if (length_now > 100) { print name ":" start ": function " who " has " length_now " lines, limit 100"; bad = 1 }
    else if (length_now > 50) print "  long: " name ":" start ": " who " " length_now " lines"
}
/^[a-zA-Z].*\(/ { before = $0 }
function file_done() {
    n_files++
    if (n > 800) { print name " has " n " lines, limit 800"; bad = 1 }
    else if (n > 400) print "  long: " name " " n " lines"
}
END {
    file_done()
    count = asort_numbers(lengths, n_functions)
    print "sizes: " n_files " files, " n_functions " functions, median " lengths[int((count + 1) / 2)] \
        ", p90 " lengths[int(count * 0.9)] ", longest " lengths[count]
    exit bad
}
function asort_numbers(a, n,   i, j, t) { # shell sort: mawk has no asort
    for (gap = int(n / 2); gap > 0; gap = int(gap / 2))
        for (i = gap + 1; i <= n; i++) {
            t = a[i]
            for (j = i; j > gap && a[j - gap] > t; j -= gap) a[j] = a[j - gap]
            a[j] = t
        }
    return n
}
' "${files[@]}"
