#!/bin/bash
# A pod in a can: shared network and process namespaces, and a real memory limit for the app alone.
#
#   in-can.sh --memory BYTES [--uid N[:GID]] -- COMMAND…   runs COMMAND in the can, outside of the limit
#   in-can.sh app COMMAND…                                 inside a can: runs COMMAND under the limit, as the app's user
#   in-can.sh sidecar N[:GID] COMMAND…                     inside a can: runs COMMAND as a sidecar container would be
#   in-can.sh --can                                        exit 0 when this machine can, else 77 and the reason
#
# COMMAND is pid 1's child in the can; when it ends, everything in the can is killed and the exit code is passed on. App and
# sidecar have a cgroup, a cgroup namespace and a cgroup mount of their own, as containers have; COMMAND itself sees the whole
# tree. Inside, CAN_CGROUP names the app's cgroup folder.
set -u

skip() { echo "SKIP: $*" >&2; exit 77; }

# Prints the version and the folder in which a memory cgroup can be made.
parent_cgroup() {
    local path
    path=$(awk -F: '$2 ~ /(^|,)memory(,|$)/ {print $3; exit}' /proc/self/cgroup)
    if [ -n "$path" ]; then
        # Inside a cgroup namespace the path may not exist below the mount: then the mount's root is our cgroup.
        [ -d "/sys/fs/cgroup/memory$path" ] || path=""
        echo "1 /sys/fs/cgroup/memory${path%/}"
    elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
        echo "2 /sys/fs/cgroup"
    fi
}

need() {
    local tool
    [ "$(id -u)" = 0 ] || skip "making namespaces and cgroups needs root"
    for tool in unshare setpriv ip mount awk; do
        command -v "$tool" > /dev/null || skip "$tool is not installed"
    done
    unshare -n -p -m -C --fork --mount-proc true 2> /dev/null || skip "this machine does not let us unshare net, pid, mount and cgroup"
    read -r version parent <<< "$(parent_cgroup)"
    [ -n "${parent:-}" ] || skip "no cgroup hierarchy with a memory controller is mounted"
    [ -w "$parent" ] || skip "$parent is not writable"
}

# Kills what is left in both cgroups, then removes them. The kernel frees a cgroup a moment after its last process.
remove_cgroups() {
    local dir try
    for dir in "$CAN_CGROUP" "$CAN_CGROUP-sidecar"; do
        for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            xargs -r kill -9 < "$dir/cgroup.procs" 2> /dev/null
            rmdir "$dir" 2> /dev/null && continue 2
            sleep 0.1
        done
        echo "in-can.sh: could not remove $dir" >&2
    done
}

make_cgroups() {
    export CAN_CGROUP="$parent/oomwatch-can-$$" CAN_UID="$uid" CAN_GID="$gid"
    mkdir "$CAN_CGROUP" "$CAN_CGROUP-sidecar" || skip "cannot make a cgroup below $parent"
    trap remove_cgroups EXIT
    if [ "$version" = 1 ]; then
        export CAN_MOUNT=/sys/fs/cgroup/memory
        echo "$memory" > "$CAN_CGROUP/memory.limit_in_bytes" || skip "cannot set a memory limit"
        echo 0 > "$CAN_CGROUP/memory.swappiness" 2> /dev/null
    else
        export CAN_MOUNT=/sys/fs/cgroup
        echo "$memory" > "$CAN_CGROUP/memory.max" || skip "cannot set a memory limit"
        echo 0 > "$CAN_CGROUP/memory.swap.max" 2> /dev/null
    fi
}

# contain CGROUP UID GID COMMAND…: becomes COMMAND in that cgroup, which it sees where the tree is mounted. The shell is under
# the limit from the first line on.
contain() {
    [ -n "${CAN_CGROUP:-}" ] || { echo "in-can.sh: not inside a can" >&2; exit 2; }
    echo $$ > "$1/cgroup.procs" || exit 2
    exec unshare -m -C -- bash -c '
        mount --bind "$1" "$CAN_MOUNT" || exit 2
        user=$2 group=$3
        shift 3
        exec setpriv --reuid "$user" --regid "$group" --clear-groups -- "$@"' contain "$@"
}

case "${1:-}" in
    app) shift; contain "${CAN_CGROUP:-}" "${CAN_UID:-}" "${CAN_GID:-}" "$@" ;;
    sidecar) ids=$2; shift 2; contain "${CAN_CGROUP:-}-sidecar" "${ids%%:*}" "${ids##*:}" "$@" ;;
    --can) need; exit 0 ;;
esac

memory="" uid=0 gid=0
while [ $# -gt 0 ]; do
    case "$1" in
        --memory) memory="$2"; shift 2 ;;
        --uid) uid="${2%%:*}" gid="${2##*:}"; shift 2 ;;
        --) shift; break ;;
        *) echo "in-can.sh: $1?" >&2; sed -n 4,7p "$0" >&2; exit 2 ;;
    esac
done
[ -n "$memory" ] && [ $# -gt 0 ] || { sed -n 4,7p "$0" >&2; exit 2; }

need
make_cgroups
unshare -n -p -m --fork --kill-child --mount-proc -- bash -c 'ip link set lo up && "$@"; exit $?' can "$@"
