#!/usr/bin/env bash
# includes.sh - who may include whom, and where each external library lives. Prints each violation.
set -u
cd "$(dirname "$0")/../.." || exit 1

grep -rnE '^ *# *include' src include --include=*.c --include=*.h --include=*.cc --include=*.cu --include=*.cuh | awk '
BEGIN {
    # Folder: the folders it may include from, besides itself; a header name allows that header alone.
    may["base"] = may["cli"] = ""
    may["tensor"] = may["guide"] = may["image"] = may["topo"] = may["ctrl"] = "base"
    may["weights"] = "base tensor"
    may["text"]    = "base weights/config.h weights/json.h"
    may["model"]   = "base tensor weights"
    may["sample"]  = "base weights/config.h"
    may["xport"]   = "base ctrl"
    may["pool"]    = "base ctrl xport"
    may["job"] = may["api"] = "base tensor weights text model guide sample ctrl xport topo pool image job"

    # Header of an external library: the files it may be included by. Patterns, tried in this order.
    home("^mpi\\.h$", "^src/(ctrl/ctrl_mpi|xport/xport_(mpi|alarm))\\.c$")
    home("^hwloc(/.*)?\\.h$", "^src/topo/")
    home("^png\\.h$", "^src/image/")
    home("cJSON\\.h$", "^src/(weights/|job/|cli/cli_predict_report\\.c$)")
    home("^xxhash\\.h$", "^src/(base|weights|text|model|job)/")
    home("^(cblas|openblas.*)\\.h$", "^src/tensor/cpu/")
    home("^sentencepiece", "^src/text/")
    home("^cu(da|blas|dnn).*\\.h$", "^src/(tensor/cuda/|topo/|xport/nccl_(comm\\.c|graphs\\.[ch])$)")
    home("^nccl\\.h$", "^src/xport/nccl_comm\\.c$")
}
function home(header, files) { n_homes++; library[n_homes] = header; lives[n_homes] = files }
function complain(text) { print text; bad++ }
{
    split($0, part, ":")
    file = part[1]; at = file ":" part[2]
    header = $0
    sub(/^[^"<]*["<]/, "", header); sub(/[">].*/, "", header)
    split(file, path, "/"); folder = path[2]
    n_lines++
}
path[1] == "include" {
    if (header !~ /^(rankpool\/[a-z_]+|stddef|stdint)\.h$/)
        complain(at ": a public header includes " header)
    next
}
/include *"/ {
    split(header, sub_path, "/"); from = sub_path[1]
    if (header !~ /\//) { complain(at ": \"" header "\" without its folder"); next }
    if (!(folder in may)) { complain(at ": folder " folder " is not in the table"); next }
    ok = from == folder
    n = split(may[folder], list, " ")
    for (i = 1; i <= n; i++) ok = ok || list[i] == from || list[i] == header
    if (!ok) complain(at ": " folder " must not include " header)
    next
}
header !~ /^rankpool\// {
    for (i = 1; i <= n_homes; i++)
        if (header ~ library[i] && file !~ lives[i]) complain(at ": <" header "> belongs to " lives[i])
}
END {
    if (bad || n_lines == 0) { print bad + 0 " violations in " n_lines + 0 " lines"; exit 1 }
    print "includes: " n_lines " lines, all within the table"
}' || exit 1

# the back end must not show through: models know tensor ops only
if grep -nE '^ *# *(if|ifdef|ifndef).*(CUDA|OPENBLAS|HAVE_)' src/model/*.[ch]; then
    echo "src/model must not know the back end"
    exit 1
fi
