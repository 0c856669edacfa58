#!/usr/bin/env bash
# rank_env.sh COMMAND... - one rank of several that share a GPU through NCCL; for tests only.
#
# NCCL refuses two ranks of one host on one GPU. With a host name of its own, each rank is a host to it,
# and the bytes go over the loopback interface: the same code as between machines, but slow.
set -euo pipefail
case ${1:-} in
"" | -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
export NCCL_HOSTID="rank${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-${SLURM_PROCID:-0}}}"
export NCCL_NET=Socket NCCL_IB_DISABLE=1 NCCL_SOCKET_IFNAME=lo NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1
export NCCL_MNNVL_ENABLE=0 NCCL_NVLS_ENABLE=0 NCCL_MAX_CTAS=2 NCCL_RAS_ENABLE=0
exec "$@"
