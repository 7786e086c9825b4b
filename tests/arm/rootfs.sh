#!/bin/bash
# Build a Debian root folder in which Python and sshd run: for arm64 under QEMU user emulation.
#
# usage: rootfs.sh ROOTFS [SUITE] [APT_SOURCE]
#   ROOTFS      target folder; created, must be empty
#   SUITE       Debian suite (default bookworm: Python 3.11)
#   APT_SOURCE  Debian archive URL (default: the one mmdebstrap chooses)
# environment: ARCH, Debian's word for the architecture (default: arm64)
#
# Needs root and mmdebstrap; for another machine's architecture qemu-user-static and binfmt-support.
# No maintainer script runs and there is no dpkg state: apt-get will not work inside.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
rootfs=$1 suite=${2:-bookworm} source=${3:-} arch=${ARCH:-arm64}
packages=python3,openssh-server,openssh-sftp-server,libstdc++6
# Unset it means "max", with which numpy's float32 matrix products came out as NaN (QEMU 7.2, SVE).
export QEMU_CPU=${QEMU_CPU:-cortex-a72}

if [ "$arch" = arm64 ] && [ "$(uname -m)" != aarch64 ]; then
    binfmt=/proc/sys/fs/binfmt_misc         # a kernel interface, not a folder
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
    [ -e $binfmt/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
fi

# '?essential' needs its own --include: a pattern cannot share a comma list.
mmdebstrap --quiet --arch="$arch" --variant=extract --include='?essential' \
    --include="$packages" "$suite" "$rootfs" ${source:+"$source"}

# By hand, what the maintainer scripts would have done.
cp "$rootfs/usr/share/base-passwd/passwd.master" "$rootfs/etc/passwd"
cp "$rootfs/usr/share/base-passwd/group.master" "$rootfs/etc/group"
echo 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' >>"$rootfs/etc/passwd"
mkdir -p "$rootfs"/{proc,sys,dev,run/sshd,root}
chroot "$rootfs" /sbin/ldconfig

chroot "$rootfs" /usr/bin/python3 -c 'import platform; print(platform.machine(), platform.python_version())'
