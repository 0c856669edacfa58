# net.sh - several "nodes" on one machine: network namespaces on one bridge, each with its own host name, hosts
# file and /dev/shm. Sourced, not run; needs root. Names hold the process id, so tests do not meet each other.
#
#   net_can             may this process do that? prints why not
#   net_up N            nodes node1 ... nodeN
#   net_on NODE WORD... run a command on a node
#   net_cut NODE        take its cable out
#   net_kill NODE       end every process on it at once, as a power cut does
#   net_pids            processes on all nodes
#   net_down            end all of them, remove everything; safe to call twice
#
# A folder $net_dir of the caller's holds the hosts file and `rsh`, which stands in for ssh.
#
# shellcheck shell=bash disable=SC2154
net_name=rankpool$$
net_n=0

net_can() {
    local tool
    [ "$(id -u)" -eq 0 ] || { echo "needs root"; return 1; }
    for tool in ip nsenter unshare mount; do
        command -v $tool >/dev/null || { echo "needs $tool (iproute2, util-linux)"; return 1; }
    done
    unshare --net --uts --mount true 2>/dev/null || { echo "needs root that may make namespaces"; return 1; }
    # Asked in namespaces that are gone when this returns.
    unshare --net --mount sh -c 'ip link add name a type veth peer name b && ip link add name c type bridge &&
        mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add d' >/dev/null 2>&1 ||
        { echo "needs root that may make veth pairs, bridges and named network namespaces"; return 1; }
}

net_up() {
    local i node
    printf '127.0.0.1 localhost\n' >"$net_dir/hosts"
    # shellcheck disable=SC2016
    printf '#!/bin/bash\n. %q\nnet_name=%s net_dir=%q\n%s\n' "$(readlink -f "${BASH_SOURCE[0]}")" "$net_name" "$net_dir" \
        'while [ "${1#-}" != "$1" ]; do shift; done; node=$1; shift; net_on "$node" sh -c "$*"' >"$net_dir/rsh"
    chmod +x "$net_dir/rsh"
    ip netns add "$net_name-switch"
    ip -n "$net_name-switch" link add name bridge type bridge
    ip -n "$net_name-switch" link set bridge up
    for i in $(seq "$1"); do
        node=$net_name-node$i
        net_n=$i
        ip netns add "$node"
        ip -n "$node" link set lo up
        ip link add name "port$i" netns "$net_name-switch" type veth peer name eth0 netns "$node"
        ip -n "$net_name-switch" link set "port$i" master bridge up
        ip -n "$node" addr add "10.211.0.$i/24" dev eth0
        ip -n "$node" link set eth0 up
        printf '10.211.0.%s node%s\n' "$i" "$i" >>"$net_dir/hosts"
    done
}

# Not `ip netns exec`, which mounts a /sys without cgroups.
net_on() { # runs in place of this shell, as all of a node's programs do: call it in a subshell or with &
    local node=$1
    shift
    # shellcheck disable=SC2016
    exec nsenter --net="/run/netns/$net_name-$node" unshare --uts --mount sh -c \
        'hostname "$0" && mount --bind "$1" /etc/hosts && mount -t tmpfs none /dev/shm && shift && exec "$@"' \
        "$node" "$net_dir/hosts" "$@"
}

net_cut() { ip -n "$net_name-switch" link set "port${1#node}" down; }
net_mend() { ip -n "$net_name-switch" link set "port${1#node}" up; }

net_kill() { ip netns pids "$net_name-$1" | xargs -r kill -9; }

net_pids() {
    local i
    for i in $(seq $net_n); do ip netns pids "$net_name-node$i"; done
}

net_down() {
    local name i
    for i in $(seq $net_n); do net_kill "node$i" || true; done
    net_n=0
    for name in $(ip netns list | cut -d' ' -f1); do
        case $name in "$net_name"-*) ip netns del "$name" || true ;; esac
    done
}
