# cluster.sh - four hosts and a Slurm on them. Sourced by slurm.sh, inside its namespaces.
#
#   cluster_start FOLDER     hosts n1 to n4 with 4 processors and 2 made-up GPUs each; n1 has slurmctld
#   on HOST COMMAND...       run a command there
#   cluster_kill HOST        as if its power had gone
#   cluster_boot HOST
#
# shellcheck shell=bash
cluster_hosts="n1 n2 n3 n4"

on() {
    local host=$1
    shift
    nsenter --net="/run/netns/$host" unshare --uts sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
}

cluster_network() {
    local i
    mount -t tmpfs tmpfs /run && mkdir -p /run/netns && mount -t tmpfs tmpfs /dev/shm || return 1
    ip link set lo up && ip link add name switch type bridge && ip link set switch up || return 1
    echo "127.0.0.1 localhost" >"$1/hosts"
    for i in 1 2 3 4; do
        echo "10.211.0.$i n$i" >>"$1/hosts"
        ip netns add n$i && ip link add name port$i type veth peer name eth0 netns n$i &&
            ip link set port$i master switch up && ip -n n$i link set lo up &&
            ip -n n$i addr add 10.211.0.$i/24 dev eth0 && ip -n n$i link set eth0 up || return 1
    done
    mount --bind "$1/hosts" /etc/hosts
}

cluster_config() {
    local folder=$1 i
    cat <<END
ClusterName=rankpool
SlurmctldHost=n1(10.211.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldDebug=debug
SlurmctldLogFile=$folder/slurmctld.log
SlurmdDebug=debug
SlurmdLogFile=$folder/slurmd.%n.log
TmpFS=$folder/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=100000,sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=3
SlurmdTimeout=6
JobRequeue=1
GresTypes=gpu
NodeName=DEFAULT CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=1000 Gres=gpu:2
END
    for i in 1 2 3 4; do
        echo "NodeName=n$i NodeAddr=10.211.0.$i Port=6818"
        echo "NodeName=n$i Name=gpu File=$folder/dev/gpu[0-1]" >>"$folder/gres.conf"
    done
    echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
    echo "AutoDetect=off" >>"$folder/gres.conf"
}

cluster_ready() { # N : nodes that are idle
    local i
    for i in $(seq 200); do
        [ "$(on n1 sinfo -h -N -t idle -o %N | wc -l)" != "$1" ] || return 0
        sleep 0.1
    done
    return 1
}

cluster_boot() { on "$1" slurmd -f "$SLURM_CONF"; }

cluster_kill() {
    local pids
    pids=$(ip netns pids "$1")
    # shellcheck disable=SC2086
    kill -9 $pids
}

cluster_start() {
    local folder=$1 host i
    mkdir -p "$folder"/state "$folder"/spool "$folder"/dev
    for host in $cluster_hosts; do mkdir -p "$folder/tmp/$host"; done
    cluster_network "$folder" || return 1
    for i in 0 1; do mknod "$folder/dev/gpu$i" c 1 3; done # as /dev/null: only the names count
    cluster_config "$folder" >"$folder/slurm.conf"
    export SLURM_CONF=$folder/slurm.conf
    head -c 128 /dev/urandom >"$folder/munge.key" && chmod 400 "$folder/munge.key"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" 2>"$folder/munged.err" || return 1
    on n1 slurmctld -f "$SLURM_CONF" || return 1
    for host in $cluster_hosts; do cluster_boot $host || return 1; done
    cluster_ready 4
}
