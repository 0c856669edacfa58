# rows.sh - the rows of run.sh: what is built, run and compared. Sourced by it.
#
# A row runs in a subshell with `set -e`, in a folder that all rows share (pictures of earlier rows are
# made when they are missing, so that --only works). `say` puts a text into the table.
#
# shellcheck shell=bash disable=SC2154
model=$root/share/models/emoji-lumina2
job=(sample --model "$model" --prompt "red heart" --seed 42 --steps 20 --overwrite)
short=(sample --model "$model" --prompt "red heart" --steps 2 --width 64 --height 64 --overwrite)

# First guesses; the numbers that were seen stand in the README beside this file.
least_f32_db=45
least_bf16_db=25
least_fp8_db=20 # against bf16

say() { echo "$*" >&3; }
skip() { say "$*"; exit 77; }
go() { # COMMAND... : within the limit; it ends when this shell is told to
    local code=0
    timeout -k 10 "$limit" "$@" &
    # shellcheck disable=SC2064
    trap "kill $! 2>/dev/null" TERM
    wait $! || code=$?
    trap - TERM
    return $code
}
ranks() { # N COMMAND...
    local n=$1
    shift
    go mpirun -n "$n" "$here/rank_env.sh" "$@"
}

# shellcheck source-path=SCRIPTDIR source=rows_refused.sh
. "$here/rows_refused.sh"
# shellcheck source-path=SCRIPTDIR source=rows_sanitizer.sh
. "$here/rows_sanitizer.sh"

# ---- build

# pkg-config files of unpacked packages say /usr; copies that say where the packages are come first.
use_prefix() {
    local lib file
    [ -n "$prefix" ] || return 0
    mkdir -p "$build/pkgconfig"
    for file in "$prefix"/usr/lib/*/pkgconfig/*.pc "$prefix"/usr/lib/pkgconfig/*.pc \
        "$prefix"/usr/share/pkgconfig/*.pc; do
        [ -e "$file" ] || continue
        sed -E "s,(^|[=[:space:]]|-[IL])/usr(/|\$),\\1$prefix/usr\\2,g" "$file" \
            >"$build/pkgconfig/$(basename "$file")"
    done
    export PKG_CONFIG_PATH=$build/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    for lib in "$prefix"/usr/lib/*-linux-gnu "$prefix"/usr/lib; do
        [ ! -d "$lib" ] || export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
}
use_prefix

build_all() {
    cmake -S "$root" -B "$build" -G Ninja -Wno-dev -DRP_CUDA=ON -DRP_TESTS=ON "${cmake_options[@]}"
    cmake --build "$build"
    "$rankpool" list backends
    "$rankpool" list backends | grep -q cuda
    say "$("$rankpool" --version | head -1)"
}

# ---- ops and golden tests

program() { # a cmocka program; its largest errors are the number
    local code=0
    go "$build/bin/$1" || code=$?
    if [ $code -eq 77 ]; then
        exit 77
    fi
    return $code
}

op_table() {
    program "test_cuda_$1" | tee "$logs/ops_$1.txt"
    say "$(awk '/largest error/ { n += $1; for (i = 1; i < NF; i++) if ($(i + 1) == "in") {
                if ($(i + 2) ~ /f32/ && $i + 0 > f) f = $i + 0; if ($(i + 2) == "bf16" && $i + 0 > b) b = $i + 0 } }
            END { if (n) printf "%d: f32 %.1e, bf16 %.1e", n, f, b }' "$logs/ops_$1.txt")"
}

golden() { # PRECISION NAME : the worst relative error is the number
    export RP_TEST_BACKEND=cuda RP_TEST_PRECISION=$1 RPT_VERBOSE=1
    program "test_$2" | tee "$logs/golden_$1_$2.txt"
    say "$(grep -oE '(error|worst step) [0-9.e+-]+' "$logs/golden_$1_$2.txt" |
        awk '$NF + 0 > m { m = $NF + 0 } END { printf "largest error %.2g", m }')"
}

# ---- pictures

picture() { # NAME ARGUMENT... : NAME.png and NAME.safetensors, if they are not there
    local name=$1
    shift
    [ -e "$name.png" ] ||
        go "$rankpool" "${job[@]}" "$@" --out "$name.png" --latents-out "$name.safetensors"
}
same() { cmp "$1.png" "$2.png" && cmp "$1.safetensors" "$2.safetensors"; }

like_cpu() { # PRECISION LEAST-DB
    local db
    picture cpu --backend cpu
    picture "$1" --backend cuda --precision "$1"
    db=$(python3 "$here/png_psnr.py" cpu.png "$1.png" "$2") || { say "$db dB < $2"; return 1; }
    say "$db dB (at least $2)"
}

# ---- fp8

fp8_or_skip() { # not every GPU multiplies in 8 bits
    local code=0
    go "$rankpool" "${short[@]}" --backend cuda --precision fp8 --out fp8-short.png 2>err || code=$?
    cat err
    ! grep -qF 'fp8 needs' err || skip "no fp8 here"
    return $code
}

fp8_ops() {
    program test_cuda_fp8 | tee "$logs/ops_fp8.txt"
    say "$(grep 'same rounded' "$logs/ops_fp8.txt" | grep -oE 'error [0-9.e+-]+' |
        awk '$2 + 0 > m { m = $2 + 0 } END { printf "%d products: %.1e", NR, m }')"
}

like_bf16() { # LEAST-DB
    local db
    fp8_or_skip
    picture bf16 --backend cuda --precision bf16
    picture fp8 --backend cuda --precision fp8
    db=$(python3 "$here/png_psnr.py" bf16.png fp8.png "$1") || { say "$db dB < $1"; return 1; }
    say "$db dB (at least $1)"
}

costs() { # the table is in the log; the last row's last cells are the number
    fp8_or_skip
    go "$here/precision.sh" "$rankpool" | tee precision.md
    say "$(tail -1 precision.md | cut -d '|' -f 3-)"
}

again() { # PRECISION
    [ "$1" != fp8 ] || fp8_or_skip
    picture "$1" --backend cuda --precision "$1"
    picture "$1-again" --backend cuda --precision "$1"
    same "$1" "$1-again"
    say "same bytes"
}

from_picture() { # the picture makes itself again from its own settings
    picture bf16 --backend cuda --precision bf16
    go "$rankpool" sample --model "$model" --from bf16.png --backend cuda --precision bf16 --overwrite \
        --out from.png
    cmp from.png bf16.png
    say "same bytes"
}

visible() { # LIST : CUDA takes what stands before an entry that is none; this rank's GPU is the first
    picture bf16 --backend cuda --precision bf16
    CUDA_VISIBLE_DEVICES=$1 go "$rankpool" "${job[@]}" --backend cuda --precision bf16 --out visible.png \
        --latents-out visible.safetensors --report visible.json
    python3 "$here/report_check.py" visible.json 1 local cuda
    same bf16 visible
    say "same bytes"
}

shared() { # PRECISION TRANSPORT N : N ranks on the one GPU give the bytes of one
    local name=$1-$2-$3
    [ "$1" != fp8 ] || fp8_or_skip
    picture "$1" --backend cuda --precision "$1"
    ranks "$3" "$rankpool" "${job[@]}" --backend cuda --precision "$1" --transport "$2" --allow-shared-gpu \
        --out "$name.png" --latents-out "$name.safetensors" --report "$name.json"
    python3 "$here/report_check.py" "$name.json" "$3" "$2" cuda
    same "$1" "$name"
    say "same bytes"
}

# In three steps nothing is known of how fast ranks are: those that share a GPU look unequal after some more.
several() { # N : three pictures by N ranks, each of which decodes its share, are those of one
    local i many=("${job[@]}" --images 3 --steps 3 --backend cuda --precision bf16)
    [ -e many-0002.png ] || go "$rankpool" "${many[@]}" --out many.png
    ranks "$1" "$rankpool" "${many[@]}" --transport nccl --allow-shared-gpu --out "many-$1.png" --trace many.json
    for i in 0 1 2; do cmp "many-000$i.png" "many-$1-000$i.png"; done
    python3 - many.json "$1" <<'END' >&3
import json, sys
events = json.load(open(sys.argv[1]))["traceEvents"]
decodes = [e for e in events if e.get("ph") == "X" and e["name"].startswith("decode")]
by_rank = {e["tid"] for e in decodes}
assert len(decodes) >= 3 and len(by_rank) == int(sys.argv[2]), (len(decodes), by_rank)
print("same bytes, decoded on", len(by_rank), "ranks")
END
}

conformance() { # N : what every transport must do; NCCL tells of its ranks, or there was no GPU for it
    local log=$logs/conformance_$1.txt n
    export NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=INIT
    ranks "$1" "$build/bin/test_xport" | tee "$log"
    n=$(grep -cE "nranks $1 .*Init COMPLETE" "$log") || true
    [ "$n" -ge "$1" ] || { say "without NCCL"; return 1; }
    say "NCCL opened on $((n / $1)) x $1 ranks"
}

# ---- against diffusers on the same GPU

# First guesses, as above: relative L2 distance of the latents after 4 guided steps.
most_f32=1e-4
most_bf16=5e-2

peer_ready() { # imports diffusers, from the wheels if there are any
    if [ -n "$wheels" ] && [ ! -d "$work/site" ]; then
        python3 -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl
    fi
    [ ! -d "$work/site" ] || export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
    export HF_HUB_OFFLINE=1
    python3 -c 'import diffusers, torch; assert torch.cuda.is_available()' || skip "no diffusers"
}

peer_model() { # NAME MAKE-OPTION... : a random pipeline and diffusers' latents, once
    local name=$1
    shift
    [ -e "$work/$name/f32.safetensors" ] ||
        go python3 "$here/peer_match.py" make "$work/$name" --parts "$model" "$@"
}

like_diffusers() { # NAME PRECISION MOST MAKE-OPTION...
    local name=$1 precision=$2 most=$3 distance theirs
    shift 3
    peer_ready
    peer_model "$name" "$@"
    go "$rankpool" sample --model "$work/$name/model" --prompt "a small red heart on a blue table" --negative blurry \
        --steps 4 --guidance 4 --backend cuda --precision "$precision" --latents-in "$work/$name/start.safetensors" \
        --latents-out "$name-$precision.safetensors" --out "" --report "$name-$precision.json" --overwrite
    distance=$(python3 "$here/peer_match.py" compare "$name-$precision.safetensors" "$work/$name/f32.safetensors")
    theirs=$(python3 "$here/peer_match.py" compare "$work/$name/bf16.safetensors" "$work/$name/f32.safetensors")
    say "$distance (diffusers bf16: $theirs)"
    awk -v d="$distance" -v m="$most" 'BEGIN { exit !(d + 0 <= m + 0) }'
}

# A job that is stopped in the middle and started again draws the undisturbed picture.
stopped() { # PRECISION
    local code=0 after name=stopped-$1
    local long=("${short[@]}" --steps 1000 --sampler dpmpp_2m --backend cuda --precision "$1")
    go "$rankpool" "${long[@]}" --out "whole-$1.png" --latents-out "whole-$1.safetensors"
    for after in 1 1.5 2 3; do # how long opening takes depends on the machine
        [ ! -e "$name.ck" ] || break
        go timeout -s USR1 $after "$rankpool" "${long[@]}" --out "$name.png" --latents-out "$name.safetensors" \
            --checkpoint "$name.ck" || code=$?
    done
    [ -e "$name.ck" ]
    [ ! -e "$name.png" ]
    go "$rankpool" "${long[@]}" --out "$name.png" --latents-out "$name.safetensors" --checkpoint "$name.ck"
    same "whole-$1" "$name"
    [ ! -e "$name.ck" ]
    say "stopped after $after s, same bytes"
}

traced() { # a trace of two ranks has every unit, and begins no span before the last one of its rank ended
    ranks 2 "$rankpool" "${job[@]}" --backend cuda --allow-shared-gpu --out traced.png --trace trace.json
    python3 - trace.json <<'END' >&3
import json, sys
events = json.load(open(sys.argv[1]))["traceEvents"]
units = [e for e in events if e.get("ph") == "X" and "unit" in e["name"]]
assert len(units) == 40, len(units)
assert len({(e["pid"], e["tid"]) for e in units}) == 2
print(len(units), "units on two ranks")
END
}

large=(bench --model "$root/share/models/lumina-image-2.0-config" --random-weights --backend cuda
    --width 4096 --height 4096 --steps 1 --guidance 1 --repeat 1 --warmup 0)

large_in_bands() { # more numbers in a picture than cuDNN counts
    go "$rankpool" "${large[@]}" --precision bf16 --json large.json --overwrite
    say "$(python3 -c 'import json; r = json.load(open("large.json"))["runs"][0]; print("decode %.2f s" % (r["decode_ms"] / 1e3))')"
}

most_idle_us=100 # median; 27 were seen

idle_time() { # at full size the next unit is there when one ends
    go "$rankpool" bench --model "$root/share/models/lumina-image-2.0-config" --random-weights --backend cuda \
        --precision bf16 --width 1024 --height 1024 --steps 12 --repeat 1 --warmup 1 --json idle.json --overwrite
    python3 - idle.json $most_idle_us <<'END' >&3
import json, sys
idle = json.load(open(sys.argv[1]))["runs"][0]["gpu_idle_us"]
print("median %.0f us, most %.0f us" % (idle["median"], idle["max"]))
assert 0 <= idle["median"] < float(sys.argv[2]), idle
END
}

all_rows() {
    local p name v n
    for name in ops latent matrix image backend record; do row "ops $name" op_table $name; done
    for p in f32 bf16; do
        for name in gemma2 lumina2 vae second pipeline; do row "golden $p $name" golden $p $name; done
    done
    row "picture f32 against the CPU's" like_cpu f32 $least_f32_db
    row "picture bf16 against the CPU's" like_cpu bf16 $least_bf16_db
    row "picture f32 twice" again f32
    row "picture bf16 twice" again bf16
    row "ops fp8" fp8_ops
    row "attention fp8" program test_cuda_fp8_attention
    row "own attention" program test_cuda_flash
    row "own attention fp8" program test_cuda_flash_fp8
    row "own attention in e4m3" program test_cuda_flash8
    row "gated pair" program test_cuda_gated
    row "gated products fp8" program test_cuda_gated_fp8
    row "norms that feed products, fp8" program test_cuda_feeds
    row "norms that feed gated pairs, fp8" program test_cuda_feeds_gated
    row "products of blocks" program test_cuda_blocks
    row "feed-forward fp8" program test_cuda_down
    for p in f32 bf16 fp8; do row "golden $p fp8_file" golden $p fp8_file; done
    row "picture fp8 against that in bf16" like_bf16 $least_fp8_db
    row "picture fp8 twice" again fp8
    row "fp8, 2 ranks, nccl" shared fp8 nccl 2
    row "what precisions cost" costs
    row "picture bf16 from itself" from_picture
    for n in 1 2 3; do row "bf16, $n ranks, nccl" shared bf16 nccl $n; done
    row "f32, 2 ranks, nccl" shared f32 nccl 2
    for n in 2 3; do row "bf16, 3 pictures, $n ranks, nccl" several $n; done
    for n in 2 3; do row "bf16, $n ranks, mpi" shared bf16 mpi $n; done
    for n in 1 2 3; do row "transport conformance, $n ranks" conformance $n; done
    for p in f32 bf16; do
        v=most_$p
        row "small pipeline, $p, as diffusers" like_diffusers small "$p" "${!v}"
        row "full-size pipeline, $p, as diffusers" like_diffusers full "$p" "${!v}" \
            --config "$root/share/models/lumina-image-2.0-config" --size 1024
    done
    sanitizer_rows
    for p in f32 bf16; do row "stopped and started again, $p" stopped $p; done
    row "trace of two ranks" traced
    row "idle between units, 1024x1024" idle_time
    row "4096x4096, bf16, in bands" large_in_bands
    row "4096x4096, f32, refused" large_refused
    row "full size with 12 GB free" takes_turns 12
    row "full size with 4 GB free" too_little 4
    for v in "" 99 abc; do row "cuda asked for, visible \"$v\"" no_such_gpu "$v"; done
    for v in "" 99 abc; do row "auto, visible \"$v\"" falls_back "$v"; done
    row 'bf16, visible "0,abc"' visible 0,abc
    for v in nccl mpi; do row "two ranks on one GPU, $v" two_on_one $v; done
    row "a GPU fails in a step, 1 rank" gpu_fails 1 0
    row "a GPU fails in a step, 2 ranks, nccl" gpu_fails 2 1
    row "rank 0's GPU fails in a step, nccl" gpu_fails 2 0
}
