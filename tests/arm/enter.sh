#!/bin/bash
# Run a command inside an arm64 root folder, in a mount namespace of its own. Needs root and binfmt.
#
# usage: enter.sh ROOTFS MODE CMD [ARG...]       MODE is a set of letters, normally pcf
#   p  mount proc
#   c  put an ARM cpuinfo over the host's x86 one (needs p; else ONNX Runtime segfaults)
#   f  fake /sys: four cores, cpufreq, one thermal zone
# environment: CPUINFO (default: pi4.cpuinfo beside this script), QEMU_CPU (default: cortex-a72)
set -euo pipefail

if [ "${EDGE_NAMESPACE:-}" != inside ]; then
    [ $# -ge 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
    export EDGE_NAMESPACE=inside QEMU_CPU=${QEMU_CPU:-cortex-a72}
    exec unshare --mount --propagation private "$BASH" "$(realpath "$0")" "$(realpath "$1")" "${@:2}"
fi
unset EDGE_NAMESPACE
rootfs=$1 mode=$2
shift 2

case $mode in *p*) mount -t proc proc "$rootfs/proc" ;; esac
case $mode in *c*) mount --bind "${CPUINFO:-$(dirname "$0")/pi4.cpuinfo}" "$rootfs/proc/cpuinfo" ;; esac
case $mode in *f*)
    mount -t tmpfs tmpfs "$rootfs/sys"
    cpu=$rootfs/sys/devices/system/cpu zone=$rootfs/sys/class/thermal/thermal_zone0
    mkdir -p "$cpu" "$zone"
    for name in possible present online; do echo 0-3 >"$cpu/$name"; done
    for i in 0 1 2 3; do
        mkdir -p "$cpu/cpu$i/cpufreq"
        for name in scaling_cur_freq cpuinfo_max_freq; do echo 1800000 >"$cpu/cpu$i/cpufreq/$name"; done
    done
    echo 48200 >"$zone/temp"
    echo cpu-thermal >"$zone/type" ;;
esac
exec chroot "$rootfs" "$@"
