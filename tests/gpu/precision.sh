#!/usr/bin/env bash
# precision.sh [RANKPOOL [PROMPT...]] - what a precision costs, on this GPU, as a Markdown table:
#
#   unit     relative error of one unit's output against f32: one step without guidance from the same
#            latents, for the shipped model and for one of full size with random weights
#   picture  PSNR of the shipped model's picture (20 guided steps) against that of bf16; mean and
#            least over the prompts; and of one picture of full size with random weights
#
# RANKPOOL defaults to build-gpu/bin/rankpool, the prompts to four of the shipped model's.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
models=$here/../../share/models
rankpool=$(realpath "${1:-$here/../../build-gpu/bin/rankpool}")
shift $(($# > 0 ? 1 : 0))
prompts=("$@")
[ $# -gt 0 ] || prompts=("red heart" "sun" "grinning face" "dog face")
temp=$(mktemp -d "${TMPDIR:-/tmp}/rankpool-precision.XXXXXX")
trap 'rm -rf "$temp"' EXIT
cd "$temp"
for name in $(compgen -e | grep '^RANKPOOL_' || true); do unset "$name"; done
backend=${BACKEND:-cuda}
read -ra precisions <<<"${PRECISIONS:-bf16 fp8 fp8-attention}"

# One step of one unit: NAME PRECISION OPTION... -> NAME-PRECISION.safetensors
step() {
    local name=$1 precision=$2
    shift 2
    "$rankpool" "$@" --backend "$backend" --precision "$precision" --steps 1 --guider none --quiet --overwrite --out "" \
        --latents-out "$name-$precision.safetensors" >/dev/null
}

unit() { # NAME OPTION... : all precisions from the same noise
    local name=$1 p
    shift
    step "$name" f32 "$@"
    python3 "$here/latents_error.py" noise "$name-f32.safetensors" "$name-start.safetensors"
    for p in f32 "${precisions[@]}"; do
        step "$name" "$p" "$@" --latents-in "$name-start.safetensors"
    done
}

unit_error() { # NAME PRECISION
    python3 "$here/latents_error.py" compare "$1-$2.safetensors" "$1-f32.safetensors" "$1-start.safetensors"
}

picture() { # PRECISION I
    "$rankpool" sample --model "$models/emoji-lumina2" --prompt "${prompts[$2]}" --seed 42 --steps 20 --quiet \
        --backend "$backend" --precision "$1" --overwrite --out "$1-$2.png"
}

full_psnr() { # PRECISION
    local p
    for p in bf16 "$1"; do
        [ -e "full-$p.png" ] || "$rankpool" "${full[@]}" --guidance 4 --prompt-tokens 128 --steps 20 --quiet \
            --backend "$backend" --precision "$p" --overwrite --out "full-$p.png" >/dev/null
    done
    echo "$(python3 "$here/png_psnr.py" "full-$1.png" full-bf16.png) dB"
}

psnr() { # PRECISION : mean and least
    local i
    for i in "${!prompts[@]}"; do
        [ -e "bf16-$i.png" ] || picture bf16 "$i"
        [ -e "$1-$i.png" ] || picture "$1" "$i"
        python3 "$here/png_psnr.py" "$1-$i.png" "bf16-$i.png"
    done | awk '{ sum += $1; if (NR == 1 || $1 < least) least = $1 } END { printf "%.1f dB, least %.1f", sum / NR, least }'
}

small=(sample --model "$models/emoji-lumina2" --prompt "red heart")
full=(bench --model "$models/lumina-image-2.0-config" --random-weights --repeat 1 --warmup 0)
unit small "${small[@]}"
unit full "${full[@]}" --guidance 1
echo "| precision | one unit, shipped model | one unit, full size | picture against bf16 | of full size |"
echo "| --- | --- | --- | --- | --- |"
for p in "${precisions[@]}"; do
    picture_error="-" full_error="-"
    [ "$p" = bf16 ] || { picture_error=$(psnr "$p"); full_error=$(full_psnr "$p"); }
    echo "| $p | $(unit_error small "$p") | $(unit_error full "$p") | $picture_error | $full_error |"
done
