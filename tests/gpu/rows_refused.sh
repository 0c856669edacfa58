# rows_refused.sh - rows about what must not work: refusals, and what is said then. Sourced by rows.sh.
#
# shellcheck shell=bash disable=SC2154

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
    [ $code -ne 0 ] && [ $code -lt 124 ]
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
    [ $code -ne 0 ] && [ $code -lt 124 ]
    [ ! -e two.png ]
    grep -qE 'rank(s)? 0' err && grep -qE 'rank(s)? 1|and 1' err && grep -qF allow-shared-gpu err
    say "exit $code, both named"
}

large_refused() { # before sampling
    local code=0
    go "$rankpool" "${large[@]}" --precision f32 >out 2>err || code=$?
    cat out err
    [ $code -ne 0 ] && [ $code -lt 124 ]
    grep -qF '4096' err && grep -qF 'bf16' err
    say "exit $code"
}
