# rows_refused.sh - rows about what must not work: refusals, and what is said then. Sourced by rows.sh.
#
# shellcheck shell=bash disable=SC2154

# In functions: of a list of commands joined by && `set -e` hears the last one alone.
refused() { [ "$1" -ne 0 ] && [ "$1" -lt 124 ]; } # EXIT-CODE : its own, not that of a limit or a signal
says() { # FILE PATTERN...
    local file=$1 pattern
    shift
    for pattern in "$@"; do
        grep -qE -- "$pattern" "$file" || { echo "lacks: $pattern"; return 1; }
    done
}

# One line of ours on stderr; mpirun may add its own.
one_line() { # FILE TEXT...
    local file=$1 text
    shift
    [ "$(grep -c '^rankpool' "$file")" = 1 ] || { echo "not one line:"; cat "$file"; return 1; }
    for text in "$@"; do
        grep '^rankpool' "$file" | grep -qF -- "$text" || { echo "lacks: $text"; cat "$file"; return 1; }
    done
}

no_such_gpu() { # VISIBLE : asked for, cuda is refused with one line that names the cause
    local code=0
    CUDA_VISIBLE_DEVICES=$1 go "$rankpool" "${short[@]}" --backend cuda --out none.png >out 2>err || code=$?
    cat err
    refused $code
    [ ! -e none.png ]
    one_line err cuda CUDA_VISIBLE_DEVICES "$1"
    say "exit $code, one line"
}

falls_back() { # VISIBLE : on its own it takes the CPU, and says so in one line
    CUDA_VISIBLE_DEVICES=$1 go "$rankpool" "${short[@]}" --out auto.png 2>err
    cat err
    one_line err CUDA_VISIBLE_DEVICES
    go "$rankpool" "${short[@]}" --backend cpu --out cpu-short.png
    [ "$(python3 "$here/png_psnr.py" auto.png cpu-short.png)" = inf ]
    say "on the CPU, one line"
}

two_on_one() { # TRANSPORT : not by accident
    local code=0
    CUDA_VISIBLE_DEVICES=0 ranks 2 "$rankpool" "${short[@]}" --backend cuda --transport "$1" --out two.png \
        >out 2>err || code=$?
    cat err
    refused $code
    [ ! -e two.png ]
    says err 'ranks? 0' 'ranks? 1|and 1' allow-shared-gpu
    say "exit $code, both named"
}

# Ranks that share a GPU look unequally fast after some waves, and rank 1 may then get no units: its GPU fails
# before that is known, in the first units that are replayed.
gpu_fails() { # N RANK : of N ranks RANK's GPU has a fault in a unit that is replayed; limit: all are gone
    local code=0 limit=30 name=failed-$1 launch=(go) at=2000
    [ "$1" = 1 ] || launch=(ranks "$1")
    [ "$2" = 0 ] || at=160
    rm -f "$name"*
    "${launch[@]}" env LD_PRELOAD="$build/lib/fail_late.so" RPT_FAIL_RANK="$2" RPT_FAIL_AT=$at \
        "$rankpool" "${short[@]}" --steps 200 --backend cuda --transport nccl --allow-shared-gpu \
        --out "$name.png" >out 2>err || code=$?
    cat out err
    refused $code
    ! compgen -G "$name*" || { echo "a picture is left"; return 1; }
    grep '^rankpool: error' err >said
    [ "$(wc -l <said)" = 1 ] || { echo "not one error"; return 1; }
    says said "rank $2 on host [^ ]+: step ([2-9]|[1-9][0-9]+), unit [0-9]" \
        'GPU [0-9]+ \(.*, GPU-[0-9a-f]{8}-[0-9a-f-]+\): ' 'an illegal memory access was encountered'
    say "exit $code, $(grep -oE 'step [0-9]+' said)"
}

# ---- not enough memory

full=(bench --model "$root/share/models/lumina-image-2.0-config" --random-weights --backend cuda --precision bf16
    --prompt-tokens 128 --guidance 4 --steps 2 --repeat 1 --warmup 0 --overwrite)

with_free() { # GB COMMAND... : while another process holds the rest of the GPU's memory
    local gb=$1 holder code=0
    shift
    python3 -c 'import torch' || skip "no torch"
    python3 "$here/leave_memory.py" "$gb" >held &
    holder=$!
    for _ in $(seq 300); do
        ! grep -q free held || break
        sleep 0.1
    done
    cat held
    go "$@" || code=$?
    kill $holder
    wait $holder || true
    return $code
}

takes_turns() { # GB : too little for all networks at once; they take turns, and the picture is the same
    [ -e full.png ] || go "$rankpool" "${full[@]}" --out full.png
    with_free "$1" "$rankpool" "${full[@]}" --out full-short.png 2>err || { cat err; return 1; }
    cat err
    says err 'left the GPU'
    cmp full.png full-short.png
    say "$(cat held), same bytes"
}

too_little() { # GB : even for one
    local code=0
    with_free "$1" "$rankpool" "${full[@]}" --out none.png 2>err || code=$?
    cat err
    refused $code
    [ ! -e none.png ]
    one_line err 'not enough memory' 'transformer' 'text encoder' 'VAE' 'What would fit'
    say "exit $code, one line"
}

large_refused() { # before sampling
    local code=0
    go "$rankpool" "${large[@]}" --precision f32 >out 2>err || code=$?
    cat out err
    refused $code
    says err 4096 bf16
    say "exit $code"
}
