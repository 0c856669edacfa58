#!/usr/bin/env bash
# quickstart.sh - launch/quickstart.sh and launch/cuda.sh: for which device they build, and how many ranks draw. All
# programs are stand-ins: nvidia-smi and nvcc answer as a test says, cmake and mpirun write down their words.
. "$(dirname "$0")/lib.sh"
for name in $(compgen -e | grep -E '^(CUDA|OMPI_)'); do unset "$name"; done

# A tree and a system of their own, and a PATH without the machine's own nvcc.
mkdir -p tree/launch tools system/usr
cp "$root"/launch/{quickstart,packages,cuda}.sh tree/launch/
sed -i "s|^RP_CUDA_SYSTEM=|&$work/system|" tree/launch/cuda.sh
for name in bash sh cat cut dirname env grep head id paste readlink sed sort tail tr timeout; do
    ln -s "$(command -v $name)" tools/
done
printf '#!/bin/sh\necho "install ok installed"\n' >tools/dpkg-query
cat >tools/cmake <<END_CMAKE
#!/bin/sh
[ "\$1" != -S ] || printf '%s\n' "\$@" >$work/configured
END_CMAKE
printf '#!/bin/sh\necho "$*" >%s/started\n' "$work" >tools/mpirun
cat >tools/nvidia-smi <<END_SMI
#!/bin/sh
[ -s $work/gpus ] || exit 9
case "\$*" in
-L) sed 's/.*/GPU 0: of compute capability &/' $work/gpus ;;
*compute_cap*) cat $work/gpus ;;
esac
END_SMI
chmod +x tools/{dpkg-query,cmake,mpirun,nvidia-smi}

gpus() { : >gpus; [ $# -eq 0 ] || printf '%s\n' "$@" >gpus; } # COMPUTE_CAPABILITY...
toolkit() { # FOLDER VERSION : complete, and it knows 8.0 to 12.0
    mkdir -p "$1"/{bin,include,lib64}
    cat >"$1/bin/nvcc" <<END_NVCC
#!/bin/sh
case \$1 in
--version) echo "Cuda compilation tools, release $2, V$2.88" ;;
--list-gpu-code) printf 'sm_80\nsm_90\nsm_90a\nsm_120\n' ;;
esac
END_NVCC
    chmod +x "$1/bin/nvcc"
    touch "$1"/include/{cublasLt,cudnn,nccl}.h "$1"/lib64/lib{cublasLt,cudnn_graph,nccl}.so
}
usual=$work/system/usr/local/cuda
quickstart() { # [NAME=VALUE...]
    rm -f configured started
    run env PATH="$work/tools" "$@" tree/launch/quickstart.sh
}
expect_options() { # cmake's, of CUDA
    [ "$(grep CUDA configured | xargs)" = "$*" ] || fail "configured with: $(grep CUDA configured | xargs)"
}
expect_ranks() { grep -q "^-n $1 " started || fail "started with: $(cat started)"; }
expect_for_cpu() { # TEXT : a GPU is there, and the text says what to install
    expect_exit 0
    expect_options -DRP_CUDA=OFF
    expect_ranks 2
    expect_in_stdout "a GPU answers, but this build is for the CPU; to use the GPU install $1"
}

for script in quickstart cuda; do
    expect_sound "$root/launch/$script.sh"
done

t "no GPU: cmake's own choice, which is the CPU, whatever toolkit there is"
gpus
toolkit "$usual" 13.0
quickstart
expect_exit 0
expect_options
expect_ranks 2
rm -r system/usr/local

t "a GPU and no toolkit"
gpus 9.0
quickstart
expect_for_cpu "the CUDA toolkit, 12.9 or newer (nvcc in PATH, CUDACXX or /usr/local/cuda), with cuDNN 9 and NCCL"

t "a GPU and a toolkit that is too old"
toolkit "$usual" 12.8
quickstart
expect_for_cpu "the CUDA toolkit, 12.9 or newer"

t "a GPU and a toolkit: built for that GPU, drawn by one rank"
toolkit "$usual" 12.9
quickstart
expect_exit 0
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$usual/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90a-real
expect_ranks 1
expect_in_stdout "building for 1 GPU(s): 90a-real"

t "two GPUs: built for both kinds, drawn by two ranks; no more than two"
gpus 12.0 8.0
quickstart
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$usual/bin/nvcc" "-DCMAKE_CUDA_ARCHITECTURES=80-real;120-real"
expect_ranks 2
gpus 9.0 9.0 9.0 9.0
quickstart
expect_in_stdout "building for 4 GPU(s): 90a-real"
expect_ranks 2

t "GPUs that CUDA_VISIBLE_DEVICES hides do not count"
quickstart CUDA_VISIBLE_DEVICES=2
expect_in_stdout "building for 1 GPU(s): 90a-real"
expect_ranks 1
quickstart CUDA_VISIBLE_DEVICES=
expect_exit 0
expect_options
expect_ranks 2

t "a GPU that the toolkit does not know"
gpus 7.5
quickstart
expect_for_cpu "a CUDA toolkit that knows this GPU ($usual/bin/nvcc does not)"
gpus 9.0

t "libraries that are missing, and where they may be too"
rm "$usual"/include/{cudnn,nccl}.h
quickstart
expect_for_cpu "cuDNN 9, NCCL 2.18 or newer (headers and libraries)"
mkdir -p system/usr/{include/any-linux-gnu,local/include}
touch system/usr/include/any-linux-gnu/cudnn.h system/usr/local/include/nccl.h
quickstart
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$usual/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90a-real
rm "$usual/lib64/libnccl.so"
quickstart
expect_for_cpu "NCCL 2.18 or newer (headers and libraries)"
touch "$usual/lib64/libnccl.so"

t "CUDACXX comes before PATH, PATH before /usr/local/cuda, and none is taken that is too old"
toolkit "$work/first" 13.0
toolkit "$work/second" 13.1
ln -s "$work/second/bin/nvcc" tools/nvcc
quickstart CUDACXX="$work/first/bin/nvcc"
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$work/first/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90a-real
quickstart
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$work/tools/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90a-real
toolkit "$work/second" 12.4
quickstart CUDACXX="$work/none/nvcc"
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$usual/bin/nvcc" -DCMAKE_CUDA_ARCHITECTURES=90a-real
rm tools/nvcc

t "RANKPOOL_CUDA=off builds for the CPU beside a GPU"
quickstart RANKPOOL_CUDA=off
expect_exit 0
expect_options -DRP_CUDA=OFF
expect_ranks 2

t "RANKPOOL_CUDA=on builds for GPUs without one, and leaves what is missing to cmake"
gpus
quickstart RANKPOOL_CUDA=on
expect_exit 0
expect_options -DRP_CUDA=ON "-DCMAKE_CUDA_COMPILER=$usual/bin/nvcc"
rm -r "$usual"
quickstart RANKPOOL_CUDA=on
expect_options -DRP_CUDA=ON
printf '#!/bin/sh\necho "no nvcc here"\nexit 1\n' >tools/cmake
quickstart RANKPOOL_CUDA=on
expect_exit 1
expect_in_stdout "no nvcc here"
expect_in_stderr "configuring failed"
expect_no_file started

t "another word is refused"
quickstart RANKPOOL_CUDA=yes
expect_exit 2
expect_in_stderr "RANKPOOL_CUDA=yes: on, off or auto"
expect_no_file configured started
finish
