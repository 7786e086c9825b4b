#!/bin/bash
# Run the tests of packages, on a board and by container engines, and undo all that takes. As root, on Debian.
#
# usage: run.sh PYTHON [PYTEST OPTION...]
# environment: EDGEPRUNE_ARM_CACHE, where root folders are kept (default: ~/.cache/edgeprune-tests)
#
# What is missing is installed and stays. Everything else ends with the tests, however they end: they run in a mount and
# process namespace of their own, the kernel's emulator is taken out again if it was not there, files are in one folder.
set -euo pipefail

if [ "${1:-}" = --inside ]; then
    python=$2
    options=("${@:3}")
    some() { # Where a shell puts a program into the background, it makes it deaf to Ctrl-C; tests that send it must not be.
        env --default-signal=INT,QUIT "$python" -m pytest -m "arm or engines" --basetemp="$TMPDIR/$1" "${options[@]}" "${@:2}"
    }
    [ -e "$BINFMT/register" ] || mount -t binfmt_misc binfmt_misc "$BINFMT"
    cd "$(dirname "$0")/../.."
    # Storages are written and removed several times over; disks are slow at that.
    [ "$(awk '/MemAvailable/ { print int($2 / 1e6) }' /proc/meminfo)" -lt 10 ] || mount -t tmpfs tmpfs "$TMPDIR"
    # Side by side: neither keeps more than one core busy for long.
    some images tests/test_arm_image.py tests/test_native_image.py tests/test_package_engines.py >"$TMPDIR/images.log" 2>&1 &
    some board tests/test_arm_package.py && code=0 || code=$?
    wait $! || code=$?
    cat "$TMPDIR/images.log"
    exit $code
fi

[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "error: root folders, mounts and container engines need root: sudo make arm" >&2; exit 2; }
binfmt=${BINFMT:-/proc/sys/fs/binfmt_misc} policy=/usr/sbin/policy-rc.d
cache=${EDGEPRUNE_ARM_CACHE:-$HOME/.cache/edgeprune-tests}
export BINFMT=$binfmt EDGEPRUNE_ARM_CACHE=$cache

mounted=yes were= scratch= child= denies=
formats() { (cd "$binfmt" && echo *); }
undo() {
    trap '' INT TERM HUP
    # The end of a process namespace's first process waits for that of all others.
    # shellcheck disable=SC2046
    [ -z "$child" ] ||
        { kill -KILL $(cat "/proc/$child/task/$child/children") || kill -KILL "$child"; wait "$child"; } 2>/dev/null || true
    [ -z "$denies" ] || rm -f "$policy"
    for name in $([ -z "$were" ] || formats); do # installing QEMU registers it for all that it emulates
        case " $were " in *" $name "*) ;; *) update-binfmts --disable "$name" || true ;; esac
    done
    [ "$mounted" ] || umount "$binfmt" || true
    rm -rf "$scratch" "$cache"/*.torn
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

scratch=$(mktemp -d)
[ -e "$binfmt/register" ] || { mounted=; mount -t binfmt_misc binfmt_misc "$binfmt"; }
were=$(formats)

programs="mmdebstrap qemu-aarch64-static update-binfmts buildah podman runc catatonit ssh dockerd docker docker-registry"
# shellcheck disable=SC2086
if [ "$(command -v $programs | wc -l)" -lt "$(echo $programs | wc -w)" ]; then
    # No daemon of these is started.
    [ -e "$policy" ] || { denies=yes; printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; }
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends mmdebstrap qemu-user-static \
        binfmt-support buildah podman runc catatonit openssh-client docker.io docker-registry
fi
[ -e "$binfmt/qemu-aarch64" ] || update-binfmts --enable qemu-aarch64

export TMPDIR=$scratch
unshare --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@" &
child=$!
wait $child && code=0 || code=$?
child=
exit $code
