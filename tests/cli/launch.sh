#!/usr/bin/env bash
# launch.sh - launch/rankpool-run: the command that it makes for each launcher, and what it does with signals and
# exit codes. mpirun, srun and nvidia-smi are stand-ins that write down what they were started with.
. "$(dirname "$0")/lib.sh"
launch=$root/launch/rankpool-run
for name in $(compgen -e | grep -E '^(OMPI_|PRTE_|PMIX_|NCCL_|SLURM_|CUDA_|LD_LIBRARY_PATH)'); do unset "$name"; done
mkdir fake bin
export FAKE=$work RANKPOOL=$work/bin/rankpool
real_path=$PATH
export PATH=$work/fake:$PATH

# The program that is started: says who it is, ends as it is told, or waits for a signal.
cat >bin/rankpool <<'END_PROGRAM'
#!/usr/bin/env bash
echo "program $*"
case $1 in
end) exit "$2" ;;
wait)
    trap 'echo got TERM; exit 143' TERM
    trap 'echo got INT; exit 130' INT
    trap 'echo got USR1' USR1
    touch "$FAKE/ready"
    for _ in $(seq 200); do sleep 0.1; done ;;
read) cat ;;
esac
END_PROGRAM

# mpirun: its options and Open MPI's part of the environment into the file `started`, then the program in its place.
cat >fake/mpirun <<'END_MPIRUN'
#!/usr/bin/env bash
case $1 in --version) cat "$FAKE/version"; exit ;; esac
{ echo "mpirun $*"; env | grep -E '^(OMPI|PRTE|NCCL)_' | sort; } >"$FAKE/started"
while [ "$1" != "$RANKPOOL" ]; do shift; done
set -m # else the program ignores SIGINT
"$@" <&0 &
trap 'kill -TERM $!' TERM
trap 'kill -INT $!' INT
trap 'kill -USR1 $!' USR1
while :; do
    wait $! && code=0 || code=$?
    kill -0 $! 2>/dev/null || break
done
[ ! -e "$FAKE/message" ] || cat "$FAKE/message" >&2
[ $code -lt 128 ] || code=1 # as mpirun has it for ranks that a signal ended
exit $code
END_MPIRUN
cat >fake/srun <<'END_SRUN'
#!/usr/bin/env bash
case $1 in --mpi=list) cat "$FAKE/mpi_list"; exit ;; esac
{ echo "srun $*"; env | grep -E '^(OMPI|PRTE|NCCL|SLURM_PMIX)_' | sort; } >"$FAKE/started"
while [ "$1" != "$RANKPOOL" ]; do shift; done
exec "$@"
END_SRUN
printf '#!/bin/sh\nprintf "left\\nright\\n"\n' >fake/scontrol
# shellcheck disable=SC2016
printf '#!/bin/sh\n[ ! -e "$FAKE/gpus" ] || cat "$FAKE/gpus"\n' >fake/nvidia-smi
# shellcheck disable=SC2016
printf '#!/bin/sh\ncat "$FAKE/uid"\n' >fake/id
printf '#!/bin/sh\nexit 0\n' >fake/ssh
chmod +x bin/rankpool fake/*
echo 1000 >uid
open_mpi() { echo "mpirun (Open MPI) $1" >version; }
slurm_has() { printf 'MPI plugin types are...\n\tnone\n\tpmi2\n' >mpi_list; [ -z "$1" ] || printf '\t%s\n' "$1" >>mpi_list; }
allocation() { SLURM_JOB_ID=7 SLURM_JOB_NODELIST=left,right "$@"; }
launch() { rm -f started ready; run "$launch" "$@"; }
expect_started() { local line; for line in "$@"; do grep -qxF -- "$line" started || fail "started without: $line"; done; }
expect_not_started() { local text; for text in "$@"; do ! grep -qF -- "$text" started || fail "started with: $text"; done; }
open_mpi 4.1.4
slurm_has pmix

t "help teaches"
launch --help
expect_exit 0
expect_in_stdout "rankpool-run -n 2 -- sample" "--hosts A:2,B:2" "--interface" "README.md"
expect_silent stderr

t "Open MPI 4, one machine"
launch -n 3 -- sample --prompt "red heart"
expect_exit 0
expect_in_stdout "program sample --prompt red heart"
expect_started "mpirun -n 3 $RANKPOOL sample --prompt red heart" OMPI_MCA_mpi_yield_when_idle=1 \
    OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1 \
    OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none
expect_not_started ALLOW_RUN_AS_ROOT PRTE_ if_include --host

t "Open MPI 5, one machine"
open_mpi 5.0.8
launch -n 3 -- info
expect_exit 0
expect_started "mpirun -n 3 $RANKPOOL info" PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe \
    PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_btl=self,sm,tcp OMPI_MCA_mpi_yield_when_idle=1
expect_not_started rmaps_base_oversubscribe vader hwloc_base_binding_policy

t "another MPI is refused by name"
echo "HYDRA build details:" >version
launch -n 2 -- info
expect_exit 2
expect_in_stderr "not Open MPI 4 or 5: HYDRA build details"
open_mpi 4.1.4

t "root"
echo 0 >uid
launch -n 2 -- info
expect_started OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
echo 1000 >uid

t "what the caller has set stays"
OMPI_MCA_pml=ucx OMPI_MCA_mpi_yield_when_idle=0 launch -n 2 -- info
expect_started OMPI_MCA_pml=ucx OMPI_MCA_mpi_yield_when_idle=0

t "one rank needs no launcher; a rank for each visible GPU"
launch -- info
expect_exit 0
expect_in_stdout "program info"
expect_no_file started
printf 'GPU %d: one\n' 0 1 2 3 >gpus
launch -- info
expect_started "mpirun -n 4 $RANKPOOL info"
CUDA_VISIBLE_DEVICES=2,3 launch -- info
expect_started "mpirun -n 2 $RANKPOOL info"
rm gpus

t "several hosts"
NCCL_DEBUG=WARN RANKPOOL_STEPS=4 launch --interface eth1 -n 3 --hosts left,right -- info
expect_exit 0
expect_started "mpirun --prefix $work -n 3 --host left:2,right:1 -x NCCL_DEBUG -x RANKPOOL_STEPS -x NCCL_SOCKET_IFNAME $RANKPOOL info" \
    OMPI_MCA_oob_tcp_if_include=eth1 OMPI_MCA_btl_tcp_if_include=eth1 NCCL_SOCKET_IFNAME==eth1 \
    OMPI_MCA_plm_rsh_no_tree_spawn=1
expect_not_started oversubscribe pml
launch --interface 10.1.0.0/16 --rsh /bin/agent --hosts left:2,right:2 -- info
expect_started "mpirun --prefix $work -n 4 --host left:2,right:2 $RANKPOOL info" \
    OMPI_MCA_oob_tcp_if_include=10.1.0.0/16 OMPI_MCA_plm_rsh_agent=/bin/agent
expect_not_started NCCL_SOCKET_IFNAME
open_mpi 5.0.8
launch --interface eth1 --rsh /bin/agent --hosts left:2,right:2 -- info
expect_started PRTE_MCA_prte_if_include=eth1 PRTE_MCA_plm_ssh_agent=/bin/agent PRTE_MCA_plm_ssh_no_tree_spawn=1
expect_not_started oob_tcp plm_rsh
open_mpi 4.1.4
echo "left slots=2" >hostfile
launch --hostfile hostfile -- info
expect_started "mpirun --prefix $work --hostfile hostfile $RANKPOOL info"

t "Slurm with PMIx"
slurm_has pmix_v4
SLURM_CPUS_PER_TASK=6 allocation launch --nodes 2 -n 8 --pass --exact -- info
expect_exit 0
expect_started "srun --mpi=pmix --cpu-bind=none --kill-on-bad-exit=1 --wait=0 --nodes 2 --ntasks 8 --cpus-per-task 6 --exact $RANKPOOL info" \
    OMPI_MCA_mpi_yield_when_idle=1 SLURM_PMIX_FENCE=ring
SLURM_PMIX_FENCE=mixed allocation launch -- info
expect_started SLURM_PMIX_FENCE=mixed

t "Slurm without PMIx"
slurm_has ""
allocation launch -- info
expect_started "mpirun $RANKPOOL info" OMPI_MCA_hwloc_base_binding_policy=none
expect_not_started oversubscribe plm_
allocation launch --nodes 2 -n 3 -- info
expect_started "mpirun --prefix $work -n 3 --host left:2,right:1 $RANKPOOL info"
slurm_has pmix
allocation launch --launcher mpirun -n 2 -- info
expect_started "mpirun -n 2 $RANKPOOL info"

t "--print shows the command and runs it, --dry-run only shows it"
launch --print -n 2 -- sample --prompt "it's red"
expect_exit 0
expect_in_stderr "mpirun -n 2 $RANKPOOL sample --prompt 'it'\\''s red'"
expect_in_stdout "program sample"
launch --dry-run -n 2 -- sample --prompt "red heart"
expect_in_stdout "mpirun -n 2 $RANKPOOL sample --prompt 'red heart'"
expect_no_file started

t "the exit code is the program's"
for n in 0 1 2 70; do
    launch -n 2 -- end $n
    expect_exit $n
    allocation launch -- end $n
    expect_exit $n
    launch -- end $n
    expect_exit $n
done

t "a lost host is a failure, whatever mpirun says"
printf 'PRTE has lost communication with a remote daemon.\n' >message
launch --hosts left,right -- end 0
expect_exit 70
expect_in_stderr "lost communication"
rm message

t "the standard input arrives"
rm -f started
"$launch" -n 2 -- read >stdout 2>stderr <<<"one line"
code=$?
expect_exit 0
expect_in_stdout "one line"

for launcher in mpirun srun none; do
    for signal in TERM:143 INT:130 USR1:0; do
        t "$launcher: ${signal%:*} reaches the program"
        if [ "$signal" = INT:130 ] && [ -n "$(trap -p INT)" ]; then
            skip "this test was started with SIGINT ignored, as a background job"
            continue
        fi
        rm -f started ready
        words=(-n 2)
        [ $launcher != none ] || words=()
        [ $launcher != srun ] || export SLURM_JOB_ID=7
        set -m # as in a shell with job control: else SIGINT is ignored
        "$launch" "${words[@]}" -- wait >stdout 2>stderr </dev/null &
        pid=$!
        set +m
        ran="$launch -- wait ($launcher)"
        for _ in $(seq 100); do
            [ -e ready ] && break
            sleep 0.05
        done
        kill -s "${signal%:*}" $pid
        sleep 0.3
        [ "$signal" != USR1:0 ] || kill -s TERM $pid
        wait $pid
        code=$?
        unset SLURM_JOB_ID
        expect_in_stdout "got ${signal%:*}"
        [ "$signal" = USR1:0 ] || expect_exit "${signal#*:}"
    done
done

t "the program is found"
mkdir -p tree/launch tree/build/bin
cp "$launch" tree/launch/
cp bin/rankpool tree/build/bin/
run env -u RANKPOOL PATH="$real_path" tree/launch/rankpool-run --dry-run --launcher none -- info
expect_exit 0
expect_in_stdout "$work/tree/build/bin/rankpool info"
rm -r tree/build
run env -u RANKPOOL PATH="$work/bin:$real_path" tree/launch/rankpool-run --dry-run --launcher none -- info
expect_in_stdout "$work/bin/rankpool info"
run env -u RANKPOOL PATH=/usr/bin:/bin tree/launch/rankpool-run --dry-run -- info
expect_exit 2
expect_in_stderr "set RANKPOOL to where it is"
RANKPOOL=$work/none launch -- info
expect_exit 2
expect_in_stderr "RANKPOOL=$work/none is no program"

t "a bad command line says what is wrong"
bad() { # TEXT WORD ...
    local text=$1
    shift
    launch "$@"
    expect_exit 2
    expect_in_stderr "$text"
    expect_no_file started
}
bad "nothing to start"
bad "unknown option --host" --host a -- info
bad "-n 0: a whole number" -n 0 -- info
bad "-n x: a whole number" -n x -- info
bad "-n needs a value" -n
bad "exclude each other" --hosts a --nodes 2 -- info
bad "cannot read the hostfile none" --hostfile none -- info
bad "--nodes counts nodes of a Slurm allocation" --nodes 2 -- info
bad "--launcher srun needs a Slurm allocation" --launcher srun -- info
bad "--launcher none starts one rank" --launcher none -n 2 -- info
bad "is no host or host:ranks" --hosts "a b" -- info
bad "all hosts a number of ranks, or none" --hosts a:2,b -- info
bad "5 ranks do not fit on --hosts a:2,b:2" -n 5 --hosts a:2,b:2 -- info
OMPI_COMM_WORLD_SIZE=2 bad "call it once, without a launcher" -n 2 -- info
finish
