#!/usr/bin/env bash
# determinism.sh - the same bytes for any number of ranks and threads, and again from a picture.
. "$(dirname "$0")/lib.sh"

cat >jobs.jsonl <<'END'
{"prompt": "red heart", "seed": 3, "out": "one.png", "latents-out": "one.safetensors"}
{"prompt": "pizza", "seed": 9, "images": 3, "out": "three.png", "latents-out": "three.safetensors"}
{"prompt": "sun", "negative": "moon", "sampler": "heun", "out": "heun.png", "latents-out": "heun.safetensors"}
END
outputs="one.png three-0000.png three-0001.png three-0002.png heun.png one.safetensors three.safetensors heun.safetensors"
job=(batch jobs.jsonl --steps 3 --width 64 --height 64)

same_as() { # reference-folder folder
    for file in $outputs; do
        expect_file "$2/$file"
        expect_same "$1/$file" "$2/$file"
    done
}

t "the reference: one rank, one thread"
run "$rankpool" "${job[@]}" --threads 1 --out-dir ref
expect_exit 0
same_as ref ref

t "the pictures differ from each other"
expect_different ref/one.png ref/three-0000.png
expect_different ref/three-0000.png ref/three-0001.png

t "the same run again"
run "$rankpool" "${job[@]}" --threads 1 --out-dir again
same_as ref again

for n in 2 3 4; do
    t "$n threads"
    run "$rankpool" "${job[@]}" --threads $n --out-dir threads$n
    same_as ref threads$n
done

for n in 1 2 3 4 5; do
    t "$n ranks"
    if have_mpi; then
        ranks $n "${job[@]}" --threads 1 --out-dir ranks$n
        expect_exit 0
        same_as ref ranks$n
    else
        skip "no MPI"
    fi
done

t "one rank through MPI's own transport"
if have_mpi; then
    run "$rankpool" "${job[@]}" --threads 1 --transport mpi --out-dir forced
    expect_exit 0
    same_as ref forced
    ranks 2 "${job[@]}" --threads 2 --out-dir ranks2x2
    same_as ref ranks2x2
else
    skip "no MPI"
fi

t "several pictures are decoded on all ranks: also of other numbers of threads, and of a pool opened at every step"
if have_mpi; then
    several=(sample --prompt pizza --seed 9 --images 3 --steps 3 --width 64 --height 64)
    for residency in job step; do
        ranks 3 "${several[@]}" --threads 2 --residency $residency --out $residency.png
        expect_exit 0
        for i in 0 1 2; do expect_same $residency-000$i.png ref/three-000$i.png; done
    done
    run mpirun -n 1 "$rankpool" "${several[@]}" --threads 1 --out mixed.png : \
        -n 1 "$rankpool" "${several[@]}" --threads 3 --out mixed.png
    expect_exit 0
    for i in 0 1 2; do expect_same mixed-000$i.png ref/three-000$i.png; done
else
    skip "no MPI"
fi

t "a rank without the VAE's files, or with others, leaves the pictures to rank 0 and says so once"
if have_mpi; then
    copy_model other
    own_file other/vae/config.json
    sed -i 's/"sample_size": 128/"sample_size": 64/' other/vae/config.json # of no use to a decoder
    copy_model none
    rm -r none/vae
    {
        echo '{"prompt": "pizza", "seed": 9, "images": 3, "out": "three.png"}'
        echo '{"prompt": "pizza", "seed": 9, "images": 3, "out": "again.png"}'
    } >few.jsonl
    few=(batch few.jsonl "${job[@]:2}" --threads 1)
    for which in other none; do
        run mpirun -n 1 "$rankpool" "${few[@]}" --out-dir $which.out : \
            -n 1 "$rankpool" "${few[@]}" --out-dir $which.out --model $which
        expect_exit 0
        expect_in_stderr "warning: rank 1 on host" "; rank 0 decodes all pictures"
        [ "$(grep -c "cannot decode: " stderr)" = 1 ] || fail "it was not said once"
        [ $which = other ] && expect_in_stderr "cannot decode: its VAE is not that of rank 0"
        [ $which = none ] && expect_in_stderr "none/vae"
        for i in 0 1 2; do
            expect_same $which.out/three-000$i.png ref/three-000$i.png
            expect_same $which.out/again-000$i.png ref/three-000$i.png
        done
    done
else
    skip "no MPI"
fi

t "each picture makes itself again, alone, also the third of three"
for picture in one three-0000 three-0002 heun; do
    run "$rankpool" sample --from ref/$picture.png --threads 1 --out again-$picture.png
    expect_exit 0
    expect_same again-$picture.png ref/$picture.png
done

t "the shipped model draws the reference picture (diffusers, 20 steps), to a few levels"
if command -v python3 >/dev/null; then
    run "$rankpool" sample --prompt "red heart" --seed 42 --steps 20 --out heart.png
    expect_exit 0
    run python3 "$here/png_diff.py" heart.png "$root/tests/data/emoji-lumina2-reference/p0-default.png"
    expect_exit 0
    max=$(cat stdout)
    [ "${max:-999}" -le 3 ] || fail "largest difference is $max of 255"
else
    skip "no python3"
fi
finish
