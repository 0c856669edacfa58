#!/usr/bin/env bash
# badinput.sh - what cannot be done is refused once, by name, and leaves nothing behind.
. "$(dirname "$0")/lib.sh"

refused() { # exit-code words-in-stderr... ; one line, no output
    expect_exit "$1"
    shift
    expect_in_stderr "$@"
    expect_lines stderr 1
    expect_no_file bad.png
    expect_no_parts
}

t "unknown options, missing values, stray arguments"
run "$rankpool" sample --stesp 3 --out bad.png
refused 2 "--stesp" "--steps"
run "$rankpool" sample --latents_in x --out bad.png
refused 2 "--latents_in" "--latents-in"
run "$rankpool" sample --zzz --out bad.png
refused 2 "--zzz" "--help"
run "$rankpool" sample --out bad.png --steps
refused 2 "--steps" "1 to 1000"
run "$rankpool" sample --prompt --out bad.png
refused 2 "--prompt needs a value" "--prompt=--out"
run "$rankpool" sample --step 3
refused 2 "--step" "did you mean --steps"
run "$rankpool" sample "red heart" --out bad.png
refused 2 "red heart" "--prompt"
run "$rankpool" sample -p sun
refused 2 "-p"
run "$rankpool" sample --quiet on
refused 2 "--quiet=on"

t "values out of range, not numbers, not finite"
for wrong in steps=0 steps=1001 steps=2.5 steps= steps=ten steps=99999999999999999999 guidance=-1 guidance=nan \
    guidance=inf guidance=1e400 guidance=0x10 width=7 images=0 seed=-1 seed=18446744073709551616 shift=0 threads=0 \
    max-tokens=0 guidance-truncation=1.5; do
    [ $wrong = steps= ] && wrong="steps= "
    run "$rankpool" sample "--$wrong" --out bad.png
    refused 2 "${wrong%%=*}" "${wrong#*=}" "allowed"
done

t "names that are not in a list"
for wrong in sampler=eular schedule=nope guider=cgf backend=tpu transport=pigeon residency=never; do
    run "$rankpool" sample "--$wrong" --out bad.png
    refused 2 "${wrong%%=*}" "${wrong#*=}" "|"
done

t "sizes that the model cannot make"
run "$rankpool" sample --width 100 --out bad.png
refused 1 "width 100" "multiples of 16"
run "$rankpool" sample --height 16384 --out bad.png
refused 1 "height 16384"

t "a prompt that is not UTF-8"
run "$rankpool" sample --prompt $'caf\xe9' --out bad.png
refused 2 "UTF-8"

t "outputs that cannot be written are refused before any work"
touch plain
for out in no/such/folder/bad.png plain/bad.png; do
    run "$rankpool" sample --steps 1000 --out $out
    refused 1 "$out"
done
run "$rankpool" sample --steps 1000 --out bad.jpg
refused 1 "bad.jpg" ".png"
run "$rankpool" sample --steps 1000 --out bad.png --report plain/r.json
refused 1 "plain/r.json"
run "$rankpool" sample --steps 1000 --out bad.png --latents-out plain/l.safetensors
refused 1 "plain/l.safetensors"

t "so is a checkpoint that could not be written when the job is told to end"
mkdir folder
ln -s nowhere link
for path in no/such/folder/a.ck plain/a.ck folder folder/ link /dev/null /proc/a.ck; do
    run "$rankpool" sample --steps 1000 --out bad.png --checkpoint "$path"
    refused 1 "cannot write $path: "
done
run "$rankpool" sample --steps 1000 --out bad.png --checkpoint bad.png
refused 1 "bad.png" "name of its own"
run "$rankpool" sample --steps 1000 --out bad.png --latents-out a.ck --checkpoint a.ck
refused 1 "a.ck" "name of its own"
expect_no_parts
rmdir folder

t "inputs that are missing or something else"
run "$rankpool" sample --latents-in missing.safetensors "${tiny[@]}" --out bad.png
refused 1 "missing.safetensors" "No such file"
run "$rankpool" sample --latents-in plain "${tiny[@]}" --out bad.png
refused 1 "plain"
run "$rankpool" sample --from missing.png --out bad.png
refused 1 "missing.png" "No such file"
run "$rankpool" sample --from plain --out bad.png
refused 1 "plain"
run "$rankpool" sample --from "$root/tests/data/emoji-lumina2-reference/p0-default.png" --out bad.png
refused 1 "p0-default.png"

# ---- models

t "model folder missing, or none"
run "$rankpool" sample --model /nowhere --out bad.png
refused 1 "/nowhere"
mkdir empty
run "$rankpool" sample --model empty --out bad.png
refused 1 "empty"

broken() { # part-to-break command... : a fresh copy in ./m, then the command in it
    rm -rf m
    copy_model "$work/m"
    (cd m && "$@") || fail "cannot break the model: $*"
    run "$rankpool" sample --model m "${tiny[@]}" --out bad.png
}
edit() { # file sed-script
    own_file "$1" && sed -i "$2" "$1"
}
cut_file() { # file bytes
    own_file "$1" && truncate -s "$2" "$1"
}
weights=transformer/diffusion_pytorch_model.safetensors

t "the copy itself works"
broken true
expect_exit 0
rm -f bad.png

t "parts that are missing"
for part in model_index.json transformer/config.json vae/config.json text_encoder/config.json \
    scheduler/scheduler_config.json tokenizer/tokenizer.model; do
    broken rm $part
    refused 1 "m/$part"
done
broken rm $weights
refused 1 "m/transformer" "diffusion_pytorch_model.safetensors"

t "configs that are no JSON, or say something unknown"
for part in model_index.json transformer/config.json vae/config.json text_encoder/config.json; do
    broken cut_file $part 20
    refused 1 "m/$part"
done
broken edit model_index.json 's/Lumina2Transformer2DModel/UnknownTransformer/'
refused 1 "UnknownTransformer"
broken edit transformer/config.json 's/"num_layers": *[0-9]*/"num_layers": 1000000/'
refused 1 "transformer" "num_layers"
broken edit transformer/config.json 's/"num_layers": *[0-9]*/"num_layers": 9/'
refused 1 "transformer"
broken edit vae/config.json 's/silu/tanh/'
refused 1 "vae" "tanh"

t "weights that are cut, empty, or garbage"
for bytes in 0 4 1000 1000000; do
    broken cut_file $weights $bytes
    refused 1 "m/$weights"
done
garbage() { rm "$1" && head -c 100000 /dev/urandom >"$1"; }
broken garbage vae/diffusion_pytorch_model.safetensors
refused 1 "m/vae/diffusion_pytorch_model.safetensors"
broken garbage tokenizer/tokenizer.model
refused 1 "tokenizer.model"

t "a disk that is full leaves no picture and no part of one"
mkdir small
if mount -t tmpfs -o size=64k tmpfs small 2>mount-error; then
    head -c 60000 /dev/zero >small/filler
    run "$rankpool" sample "${tiny[@]}" --width 128 --height 128 --out small/bad.png
    refused 1 "small/bad.png" "No space left on device"
    rm small/filler
    run "$rankpool" sample "${tiny[@]}" --out small/ok.png
    expect_exit 0
    head -c 40000 /dev/zero >small/filler
    printf '{"width": 128, "height": 128}\n{"width": 32, "height": 32, "out": "after.png"}\n' >jobs.jsonl
    run "$rankpool" batch jobs.jsonl --out-dir small --steps 1
    expect_exit 1
    expect_in_stderr "jobs.jsonl:1: " "No space left on device"
    expect_file small/after.png
    expect_file small/ok.png
    expect_no_parts small
    umount small
else
    skip "tmpfs cannot be mounted: $(cat mount-error)"
fi

# ---- several ranks

if ! have_mpi; then
    t "several ranks"
    skip "no MPI"
    finish
fi

t "more ranks than units: the rest stays idle"
ranks 5 sample "${tiny[@]}" --guidance 1 --out idle.png
expect_exit 0
expect_in_stdout "5 ranks"
run "$rankpool" sample "${tiny[@]}" --guidance 1 --out alone.png
expect_same idle.png alone.png

t "a bad model under two ranks: one message, no hang"
limit=20 ranks 2 sample --model /nowhere --out bad.png
expect_exit nonzero
[ "$(grep -c /nowhere stderr)" = 1 ] || fail "the cause is not printed once"
limit=20 ranks 2 sample --width 100 --out bad.png
expect_exit nonzero
[ "$(grep -c 'width 100' stderr)" = 1 ] || fail "the cause is not printed once"

t "different models on two ranks"
rm -rf m
copy_model "$work/m"
own_file m/$weights
printf '\x42' | dd of=m/$weights bs=1 seek=15000000 conv=notrunc status=none
limit=20 run mpirun -n 1 "$rankpool" sample "${tiny[@]}" --out bad.png : \
    -n 1 "$rankpool" sample --model m "${tiny[@]}" --out bad.png
expect_exit nonzero
expect_in_stderr "another model" "rank 1"
expect_no_file bad.png

t "different builds on two ranks"
library=$(readlink -f "$build/lib/librankpool.so")
if command -v objcopy >/dev/null && objcopy -O binary --only-section=.note.gnu.build-id "$library" id; then
    mkdir other
    printf 'other' | dd of=id bs=1 seek=20 conv=notrunc status=none
    objcopy --update-section .note.gnu.build-id=id "$library" other/librankpool.so.0
    limit=20 run mpirun -n 1 "$rankpool" sample "${tiny[@]}" --out bad.png : \
        -n 1 env LD_LIBRARY_PATH="$work/other" "$rankpool" sample "${tiny[@]}" --out bad.png
    expect_exit nonzero
    expect_in_stderr "another build" "rank 1"
    expect_no_file bad.png
else
    skip "no objcopy"
fi

t "outputs of one job have names of their own"
run "$rankpool" sample "${tiny[@]}" --out same.png --latents-out ./same.png --overwrite
expect_exit 1
expect_in_stderr "latents-out: ./same.png is another file of this job; give it a name of its own"
run "$rankpool" sample "${tiny[@]}" --out own.png --report same --trace same
expect_exit 1
expect_in_stderr "report: same is another file of this job; give it a name of its own"
expect_no_file same same.png own.png

t "a name with no room for that of the temporary file, and a file over the limit of the shell"
run "$rankpool" sample "${tiny[@]}" --out "$(printf 'a%.0s' {1..245}).png"
expect_exit 1
expect_in_stderr "a name may have 240 bytes"
run bash -c 'ulimit -f 1; exec "$@"' - "$rankpool" sample --steps 1 --out big.png
expect_exit 1
expect_in_stderr "cannot write big.png: File too large"
expect_no_file big.png
expect_no_parts

finish
