#!/usr/bin/env bash
# bench.sh [OPTION...] - rankpool and its peers on this GPU, one after the other, and one table.
#
#   --build DIR           where rankpool was built (default build-gpu)
#   --wheels DIR          wheels that the peers need and this machine's Python lacks; see README.md
#   --peers none|eager|all  eager: diffusers as it is; all: compiled too, which takes minutes (default all)
#   --limit SECONDS       longest time of one peer (default 240); what was measured by then counts
#   --repeat N            jobs of rankpool, after one to warm up (default 3)
#   --turns N             of the pool and a plain loop over the same denoiser (default 4)
#   --steps N             steps of a job (default 20)
#   --size PX             width and height (default 1024)
#   --python PROGRAM      default python3
#   --precision NAME      of rankpool (default bf16; the peers compute in bf16)
#   --out DIR             keep the JSON files and the table there
#
# Model: the sizes of Lumina-Image-2.0 with random weights; 128 caption tokens in each branch, 256 tokens
# for the text encoder alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

build=$root/build-gpu wheels="" peers=all limit=240 repeat=3 turns=4 steps=20 size=1024 python=python3
precision=bf16 out=""
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=${2:?--build needs a folder}; shift ;;
    --wheels) wheels=$(cd "${2:?--wheels needs a folder}" && pwd); shift ;;
    --peers) peers=${2:?--peers needs none, eager or all}; shift ;;
    --limit) limit=${2:?--limit needs seconds}; shift ;;
    --repeat) repeat=${2:?--repeat needs a number}; shift ;;
    --turns) turns=${2:?--turns needs a number}; shift ;;
    --steps) steps=${2:?--steps needs a number}; shift ;;
    --size) size=${2:?--size needs pixels}; shift ;;
    --python) python=${2:?--python needs a program}; shift ;;
    --precision) precision=${2:?--precision needs a name}; shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    esac
    shift
done
case $peers in none | eager | all) ;; *) echo "--peers $peers: none, eager or all" >&2; exit 2 ;; esac
[[ $turns =~ ^[1-9][0-9]*$ ]] || { echo "--turns $turns: a whole number from 1 on" >&2; exit 2; }
rankpool=$(cd "$build" && pwd)/bin/rankpool
model=$root/share/models/lumina-image-2.0-config
temp=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-bench.XXXXXX")
trap 'rm -rf "$temp"' EXIT
out=${out:-$temp/out}
mkdir -p "$out"

ours() { # FILE ARGUMENT...
    local file=$1
    shift
    "$rankpool" bench --model "$model" --random-weights --backend cuda --precision "$precision" \
        --warmup 1 --json "$out/$file.json" --overwrite "$@"
}
echo "== rankpool"
ours units --prompt-tokens 128 --width "$size" --height "$size" --steps "$steps" --repeat "$repeat"
# one prompt alone: without guidance there is no second one
ours encode --prompt-tokens 256 --guidance 1 --width 256 --height 256 --steps 1 --repeat 20

# The denoiser alone, without a pool around it. Cards slow down as they warm up by more than a pool takes: they
# take turns, in the order loop pool, pool loop, ..., each after three times as many steps as are timed.
loop() { "$(dirname "$rankpool")/plain_loop" "$model/transformer" "$precision" "$size" 128 "$steps" | tee -a "$out/loop.jsonl"; }
pool() {
    ours turn --prompt-tokens 128 --width "$size" --height "$size" --steps "$steps" --warmup 3 --repeat 1 >"$temp/turn"
    "$python" -c 'import json, sys; print(json.dumps({"pool_step_ms": json.load(open(sys.argv[1]))["runs"][0]["step_ms"]}))' \
        "$out/turn.json" | tee -a "$out/loop.jsonl"
}
echo "== the pool and a plain loop, taking turns"
rm -f "$out/loop.jsonl"
for i in $(seq "$turns"); do
    if [ $((i % 2)) = 1 ]; then loop; pool; else pool; loop; fi
done

: >"$out/peers.jsonl"
if [ "$peers" != none ]; then
    if [ -n "$wheels" ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$temp/site" "$wheels"/*.whl
        export PYTHONPATH=$temp/site${PYTHONPATH:+:$PYTHONPATH}
    fi
    export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
    for flag in "" --compile; do
        [ -z "$flag" ] || [ "$peers" = all ] || continue
        echo "== diffusers ${flag:-eager}"
        # shellcheck disable=SC2086
        timeout -k 10 "$limit" "$python" "$here/peer_gpu.py" --config "$model" --size "$size" $flag |
            tee -a "$out/peers.jsonl" || echo "   stopped: exit ${PIPESTATUS[0]}"
    done
fi
echo
"$python" "$here/bench_table.py" "$out/units.json" "$out/encode.json" "$out/peers.jsonl" "$out/loop.jsonl" | tee "$out/table.md"
