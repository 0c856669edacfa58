# scale_rows.sh - the sections of scale.sh. Sourced by it.
#
# A section is a function that runs in a subshell with `set -e`, its output in the log; what it measures
# goes into results.jsonl, a line for each number of the table. Files of runs lie in $work, and one
# section takes what another has measured.
#
# shellcheck shell=bash disable=SC2154
config=$root/share/models/lumina-image-2.0-config
small=$root/share/models/emoji-lumina2
full=(--model "$config" --random-weights --backend cuda --prompt-tokens 128 --guidance 4
    --width "$size" --height "$size")

emit() { printf '%s\n' "$1" >>"$results"; }
skip() { echo "$*" >"$work/why"; exit 77; }
many() { [ "$most" -gt 1 ] || skip "one GPU"; }

record() { # SECTION [REPORT.json] KEY=VALUE... : one line; of a report what the table may need
    "$python" - "$@" >>"$results" <<'P'
import json, sys
row = {"section": sys.argv[1]}
for argument in sys.argv[2:]:
    key, equals, value = argument.partition("=")
    if not equals:
        report = json.load(open(argument))
        row.update({k: v for k, v in report.items() if not isinstance(v, (dict, list)) or k in ("runs", "ranks")})
        continue
    try:
        row[key] = json.loads(value)
    except ValueError:
        row[key] = value
print(json.dumps(row))
P
}

left() { echo $((deadline - SECONDS > 1 ? deadline - SECONDS : 1)); }
go() { timeout -k 10 "$(left)" "$@" </dev/null; }

# Sets `launch` and `shared`: more ranks than GPUs share them, for --try.
use_ranks() { # N
    launch=() shared=()
    [ "$1" -eq 1 ] || launch=(mpirun -n "$1")
    [ "$1" -le "$gpus" ] || launch+=("$here/rank_env.sh") shared=(--allow-shared-gpu --transport nccl)
}

bench() { # FILE PRECISION RANKS OPTION... : $work/FILE.json
    local file=$1 precision=$2 launch shared
    use_ranks "$3"
    shift 3
    go "${launch[@]}" "$rankpool" bench "${full[@]}" --precision "$precision" "${shared[@]}" --steps "$steps" \
        --json "$work/$file.json" --overwrite "$@"
}

timed() { # FILE PRECISION RANKS IMAGES : once; $work/FILE.smi has clocks and power meanwhile
    local watcher code=0
    [ ! -e "$work/$1.json" ] || return 0
    nvidia-smi --query-gpu=index,clocks.sm,power.draw --format=csv,noheader,nounits -lms 200 \
        >"$work/$1.smi" 2>/dev/null &
    watcher=$!
    bench "$1" "$2" "$3" --images "$4" --warmup 1 --repeat "$repeat" || code=$?
    kill $watcher 2>/dev/null || true
    wait $watcher 2>/dev/null || true
    return $code
}

under_load() { # FILE RANKS : mhz=[..] watts=[..] of the GPUs that the ranks are on, medians while they work
    "$python" - "$work/$1.smi" "$2" <<'P'
import statistics, sys
samples = {}
for line in open(sys.argv[1]):
    try:
        index, mhz, watts = (float(x) for x in line.split(","))
    except ValueError:  # not told, or cut off
        continue
    samples.setdefault(int(index), []).append((mhz, watts))
busy = {}
for index, seen in sorted(samples.items())[:int(sys.argv[2])]:
    most = max(watts for _, watts in seen)
    busy[index] = [s for s in seen if s[1] > 0.8 * most]
for name, i in (("mhz", 0), ("watts", 1)):
    print(f"{name}={[round(statistics.median(s[i] for s in seen)) for seen in busy.values()]}".replace(" ", ""))
P
}

# ---- the machine

# How the GPUs that are used reach each other: NV18, PIX, PHB, NODE, SYS ... as nvidia-smi names it.
link() {
    nvidia-smi topo -m 2>/dev/null | sed 's/\x1b\[[0-9;]*m//g' | awk -v n="$gpus" '
        $1 ~ /^GPU[0-9]+$/ && substr($1, 4) + 0 < n {
            for (i = 2; i <= n + 1; i++)
                if ($i ~ /^(NV[0-9]+|PIX|PXB|PHB|NODE|SYS)$/ && !seen[$i]++) text = text (text ? ", " : "") $i
        }
        END { print text ? text : "none" }'
}

describe_machine() { # COMMAND-LINE
    local name driver power
    IFS=, read -r name driver power < <(
        nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader 2>/dev/null || echo unknown,,)
    record machine "name=$name" "driver=${driver# }" "power=${power# }" "gpus=$gpus" "link=$(link)" \
        "date=$(date +%F)" "try=$([ $try = yes ] && echo true || echo false)" \
        "version=$("$rankpool" --version | head -1)" "command=$1"
}

# ---- sections

wire() { # the bytes of a wave, without any unit
    local n launch shared code=0 options=(--sizes 0.5,1,2,4 --repeat 300)
    many
    [ $try = no ] || options=(--sizes 0.25,1 --repeat 20)
    for n in "${counts[@]:1}"; do
        use_ranks "$n"
        go "${launch[@]}" "$build/bin/wire_bench" "${options[@]}" >"$work/wire" || code=$?
        cat "$work/wire"
        grep '^{' "$work/wire" >>"$results" || true # what was measured before a failure counts
    done
    return $code
}

# One image: two units in a step, so two ranks at most. In two rounds, for warm cards are slower than cold
# ones: the second counts.
image() {
    local p n round load
    for p in $precisions; do
        for round in 1 2; do
            for n in 1 2; do
                [ $n -le "$most" ] || continue
                timed "image-$p-$n-$round" "$p" $n 1
                mapfile -t load < <(under_load "image-$p-$n-$round" $n)
                record image "$work/image-$p-$n-$round.json" precision="$p" round=$round "${load[@]}"
            done
        done
    done
}

images() { # as many images as ranks
    local p n file load
    many
    for p in $precisions; do
        for n in "${counts[@]}"; do
            file=images-$p-$n
            [ "$n" != 1 ] || file=image-$p-1-2
            timed "$file" "$p" "$n" "$n"
            mapfile -t load < <(under_load "$file" "$n")
            record images "$work/$file.json" precision="$p" "${load[@]}"
        done
    done
}

pictures() { # FOLDER PRECISION RANKS IMAGES STEPS : picture and latents of a job with random weights
    [ ! -d "$work/$1" ] || return 0
    mkdir "$work/$1"
    bench written "$2" "$3" --images "$4" --steps "$5" --warmup 0 --repeat 1 \
        --out "$work/$1/x.png" --latents-out "$work/$1/x.safetensors"
}

same() { # latents and pictures do not depend on the number of ranks, at full size; all ranks have work
    local p n n_images n_steps one several equal bad=0
    many
    for p in $precisions; do
        for n in "${counts[@]:1}"; do
            n_images=$((n / 2)) n_steps=$steps
            [ "$n" = 2 ] || n_steps=$((steps < 10 ? steps : 10))
            one=same-$p-$n_images-1 several=same-$p-$n_images-$n
            pictures "$one" "$p" 1 "$n_images" "$n_steps"
            pictures "$several" "$p" "$n" "$n_images" "$n_steps"
            equal=true
            diff -r "$work/$one" "$work/$several" || { equal=false bad=1; }
            record same precision="$p" n_ranks="$n" images="$n_images" steps="$n_steps" same=$equal \
                files="$(find "$work/$one" -type f | wc -l)" bytes="$(cat "$work/$one"/* | wc -c)"
        done
    done
    [ $bad = 0 ]
}

residency() { # a pool for the run against a pool for each step
    local times=5
    many
    [ $try = no ] || times=1
    bench residency "${precisions%% *}" 2 --residency run,step --warmup 0 --repeat $times
    record residency "$work/residency.json" precision="${precisions%% *}"
}

peer_ready() { # imports diffusers, from the wheels if there are any
    if [ -n "$wheels" ] && [ ! -d "$work/site" ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl
    fi
    [ ! -d "$work/site" ] || export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
    "$python" -c 'import diffusers, torch; assert torch.cuda.is_available()' || skip "no diffusers"
}

peer() { # two threads of one process with a GPU each; what was measured when time is over counts
    local code=0 devices=0,1 seconds
    many
    [ "$gpus" -gt 1 ] || devices=0,0
    [ $try = no ] || eager=(--eager)
    peer_ready
    seconds=$(($(left) * 4 / 5))
    go "$python" "$here/peer_two.py" --config "$config" --size "$size" --steps "$steps" --repeat "$repeat" \
        --devices $devices --seconds $seconds "${eager[@]}" >"$work/peer" || code=$?
    cat "$work/peer"
    grep '^{' "$work/peer" >>"$results" || true
    return $code
}

make_model() { # a random checkpoint of full size
    [ ! -e "$model/model_index.json" ] || return 0
    peer_ready
    go "$python" "$here/peer_match.py" make "$work/made" --parts "$small" --config "$config" --steps 0
    mkdir -p "$(dirname "$model")"
    mv "$work/made/model" "$model"
}

start() { # from the start of the program to the first step done; twice, files in the page cache
    local n i begin launch shared
    model=${model:-$work/model}
    [ $try = no ] || model=$small
    make_model
    for n in "${counts[@]}"; do
        use_ranks "$n"
        for i in 1 2; do
            begin=$(date +%s%N)
            go "${launch[@]}" "$rankpool" sample --model "$model" --backend cuda "${shared[@]}" --prompt "a red heart" \
                --steps 1 --width "$size" --height "$size" --out "" --latents-out "$work/start.safetensors" \
                --report "$work/start.json" --overwrite --quiet
            record start "$work/start.json" run=$i whole_seconds="$(seconds_since "$begin")"
        done
    done
}

seconds_since() { awk -v a="$1" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }'; }

# ---- a rank's death

children() { # PID
    local stat line fields
    for stat in /proc/[0-9]*/stat; do
        line=$(cat "$stat" 2>/dev/null) || continue
        read -ra fields <<<"${line##*) }"
        [ "${fields[1]}" != "$1" ] || basename "$(dirname "$stat")"
    done
}

of_rank() { # RANK PID... : the process of that rank
    local rank=$1 pid
    shift
    for pid in "$@"; do
        if tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$rank"; then
            echo "$pid"
        fi
    done
}

n_alive() { # PID...
    local pid line n=0
    for pid in "$@"; do
        line=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
        [[ ${line##*) } == [ZX]* ]] || n=$((n + 1))
    done
    echo $n
}

wait_for_steps() { # PID : until its job is well under way
    until grep -qE '[0-9]+/1000 steps' "$work/death.err"; do
        [ "$(n_alive "$1")" = 1 ] || { echo "it ended by itself"; return 1; }
        [ "$(left)" -gt 1 ] || { echo "no step within the limit"; return 1; }
        sleep 0.1
    done
    sleep 0.3
}

death() { # the last rank is killed in the middle of a step: when have all others gone, and what is said?
    local pids victim begin end launch shared code=0 left_over
    many
    use_ranks "$most"
    "${launch[@]}" "$rankpool" bench "${full[@]}" --precision "${precisions%% *}" "${shared[@]}" --images $((most / 2)) \
        --steps 1000 --warmup 0 --repeat 5 >"$work/death.out" 2>"$work/death.err" </dev/null &
    launcher=$!
    trap 'cat "$work/death.err"; [ "$(n_alive $launcher)" = 0 ] || kill $launcher' EXIT # also when this fails
    wait_for_steps $launcher
    mapfile -t pids < <(children $launcher)
    victim=$(of_rank $((most - 1)) "${pids[@]}")
    begin=$(date +%s%N)
    kill -9 "$victim"
    for _ in $(seq 1000); do
        [ "$(n_alive $launcher "${pids[@]}")" != 0 ] || break
        sleep 0.02
    done
    end=$(seconds_since "$begin")
    left_over=$(n_alive $launcher "${pids[@]}")
    [ "$left_over" = 0 ] || kill -9 $launcher "${pids[@]}" || true
    wait $launcher || code=$?
    record death n_ranks="$most" victim=$((most - 1)) seconds="$end" code=$code left="$left_over" \
        "message=$(grep -m 1 '^rankpool: error' "$work/death.err" || true)"
    [ $code -ne 0 ] && [ "$left_over" = 0 ] && grep -q "^rankpool: error: rank $((most - 1)) " "$work/death.err"
}
