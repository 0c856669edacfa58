# job.sh - what the job scripts share. Sourced, not run.
#
#   rp_run COMMAND [option ...]   `rankpool COMMAND ...` on all ranks of the job, by srun or mpirun; SIGUSR1
#                                 goes on to it; sets rp_code to its exit code
#   rp_end                        ends the script: 85 and lost ranks put the job back into the queue
#
# shellcheck shell=bash
rp_root=${RP_ROOT:-${SLURM_SUBMIT_DIR:?start this with sbatch}}
rp_site=${RP_SITE:-$rp_root/slurm/site.env}
# shellcheck source=/dev/null
[ ! -f "$rp_site" ] || . "$rp_site"
rp_program=${RP_PROGRAM:-$rp_root/build/bin/rankpool}
for rp_module in ${RP_MODULES:-}; do
    module load "$rp_module" || exit 1
done
[ -x "$rp_program" ] || {
    echo "job.sh: no program $rp_program: submit from the folder of the repository, or set RP_ROOT or RP_PROGRAM" >&2
    exit 1
}
if [ -n "${RP_INTERFACE:-}" ]; then # else MPI and NCCL choose
    export OMPI_MCA_btl_tcp_if_include=$RP_INTERFACE OMPI_MCA_oob_tcp_if_include=$RP_INTERFACE
    export NCCL_SOCKET_IFNAME=$RP_INTERFACE
fi
# Since Slurm 22.05 srun does not take this over from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# Slurm has two ways for ranks to wait for each other at the end of MPI_Init: a ring, and a tree that waits for
# nobody where there are fewer nodes than TreeWidth. Then a rank that is slow to start gets messages and crashes.
export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}

# mpirun starts one helper a node with srun, and all ranks of the node below it: that helper has to see all
# GPUs of the node, not those of one task.
rp_gpus_of_node() {
    [ -n "${SLURM_GPUS_PER_TASK:-}" ] || return 0
    unset SLURM_GPUS_PER_TASK SLURM_TRES_PER_TASK
    export SLURM_GPUS_PER_NODE=${SLURM_GPUS_ON_NODE:?} SLURM_GPU_BIND=none
}

# A rank that ends long before the others was lost when they could not see it yet.
rp_srun=(srun --mpi="${RP_SRUN_MPI:-pmix}" --wait=60)

rp_start() { # in a shell of its own, which becomes the launcher
    case ${RP_LAUNCHER:-srun} in
    srun) exec "${rp_srun[@]}" "$rp_program" "$@" ;;
    mpirun)
        rp_gpus_of_node
        exec mpirun -n "$SLURM_NTASKS" "$rp_program" "$@"
        ;;
    *)
        echo "job.sh: RP_LAUNCHER is srun or mpirun, not $RP_LAUNCHER" >&2
        exit 2
        ;;
    esac
}

rp_run() {
    local pid stopped=no
    rp_start "$@" &
    pid=$!
    trap 'stopped=yes; kill -USR1 $pid 2>/dev/null' USR1
    wait $pid
    rp_code=$?
    while [ $stopped = yes ]; do # the signal ended only the waiting
        stopped=no
        wait $pid
        rp_code=$?
    done
    trap - USR1
}

# 85: told to stop, state kept. 70: a rank has gone. 137, 143 ...: ended by a signal, as ranks are when their
# node dies. After those the job starts again, up to RP_RESTARTS times; not after 1 and 2, which would come again.
rp_end() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    case $rp_code in
    0 | 1 | 2) exit "$rp_code" ;;
    esac
    if [ "$restarts" -ge "${RP_RESTARTS:-20}" ]; then
        echo "job.sh: exit code $rp_code, and $restarts restarts are enough" >&2
        exit "$rp_code"
    fi
    echo "job.sh: exit code $rp_code: back into the queue (restart $((restarts + 1)))" >&2
    scontrol requeue "$SLURM_JOB_ID" || exit "$rp_code"
    sleep 60 # Slurm ends this script
}
