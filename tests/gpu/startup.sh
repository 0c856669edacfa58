#!/usr/bin/env bash
# startup.sh MODEL [RANKPOOL] - seconds from the start of the program to the first step done, page cache warm.
#
# MODEL is a full-size pipeline folder with weights (peer_match.py make OUT --config ... writes a random
# one, OUT/model). Prints the whole run and what the report says about its parts; three runs, the
# first fills the page cache.
set -euo pipefail
case ${1:-} in -h | --help | "") sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
model=$1
rankpool=${2:-$(cd "$(dirname "$0")/../.." && pwd)/build-gpu/bin/rankpool}
temp=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-startup.XXXXXX")
trap 'rm -rf "$temp"' EXIT

for i in 1 2 3; do
    begin=$(date +%s.%N)
    "$rankpool" sample --model "$model" --prompt "a red heart" --steps 1 --out "" --latents-out "$temp/x.safetensors" \
        --report "$temp/report.json" --overwrite --quiet
    awk -v a="$begin" -v b="$(date +%s.%N)" -v i="$i" 'BEGIN { printf "run %d: %.2f s whole", i, b - a }'
    python3 - "$temp/report.json" <<'P'
import json, sys
r = json.load(open(sys.argv[1]))
keys = [k for k in r if k.endswith("_seconds") or k.endswith("_gb") or k.endswith("per_second")]
print("; " + ", ".join(f"{k} {r[k]:.3f}" for k in keys if isinstance(r[k], (int, float))))
P
done
