"""What shows an emulator: each trace alone suffices, and no real board shows any."""

from __future__ import annotations

import pytest

from edgeprune.worker.emulation import emulator

A72 = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nbogomips\t: 125.00\n"
PI = "Raspberry Pi 4 Model B Rev 1.4"
MAPS = "7fd9e6200000-7fd9e6428000 r-xp 00000000 fe:00 2171070    /usr/{}\n5500000000-5500001000 ---p 00000000 00:00 0\n"


def trace(machine="aarch64", cpuinfo=A72, model=PI, **files) -> str | None:
    named = {f"/proc/{name.replace('__', '/').replace('_', '-')}": text for name, text in files.items()}
    return emulator(machine, cpuinfo, model, named.get)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"sys__kernel__arch": "x86_64\n"}, "aarch64 programs on a kernel for x86_64"),
        ({"machine": "x86_64", "cpuinfo": X86, "model": "", "sys__kernel__arch": "aarch64\n"}, "on a kernel for"),
        ({"machine": "riscv64", "cpuinfo": "", "sys__kernel__arch": "x86_64\n"}, "on a kernel for"),
        ({"thread_self__cmdline": "/usr/bin/qemu-aarch64-static\0python3\0"}, "qemu-aarch64-static in"),
        ({"thread_self__cmdline": "/usr/libexec/qemu-binfmt/aarch64-binfmt-P\0/bin/sh\0"}, "qemu-binfmt in"),
        ({"thread_self__maps": MAPS.format("bin/qemu-aarch64-static")}, "/proc/thread-self/maps"),
        ({"thread_self__maps": MAPS.format("lib/box64")}, "box64 in"),
        ({"machine": "x86_64", "cpuinfo": "", "thread_self__maps": MAPS.format("rosetta")}, "rosetta in"),
        ({"self__environ": "A=1\0QEMU_LD_PREFIX=/usr\0"}, "the variable QEMU_LD_PREFIX"),
        ({"cpuinfo": X86}, "ARM programs on an x86 processor"),
        ({"machine": "x86_64", "cpuinfo": A72}, "x86 programs on an ARM processor"),
        ({"machine": "x86_64", "cpuinfo": "model name\t: QEMU TCG CPU version 2.5+\n"}, "QEMU calculates"),
        ({"cpuinfo": A72.replace("0x41", "0x00")}, "without a maker"),
        ({"cpuinfo": A72.replace("108", "125")}, "the counter of QEMU"),
        ({"cpuinfo": A72.replace("108", "125"), "model": "linux,dummy-virt"}, "the counter of QEMU"),
    ],
)
def test_each_trace_alone_suffices(seen, words):
    assert words in (trace(**seen) or "nothing")


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"sys__kernel__arch": "aarch64\n"},
        {"machine": "armv7l", "sys__kernel__arch": "aarch64\n"},  # a 32-bit system on a 64-bit kernel
        {"machine": "i686", "cpuinfo": X86, "model": "", "sys__kernel__arch": "x86_64\n"},
        {"machine": "x86_64", "cpuinfo": X86, "model": ""},
        {"machine": "", "cpuinfo": "", "model": ""},
        {"machine": "", "sys__kernel__arch": "aarch64\n"},  # no uname on PATH
        {"thread_self__cmdline": "python3\0/home/pi/qemu-aarch64-static\0"},  # an argument
        {"thread_self__maps": MAPS.format("lib/libqemutils.so")},
        {"self__environ": "MY_QEMU_CPU=a72\0"},
        {"model": "linux,dummy-virt"},  # a virtual machine on a real processor
        {"model": "NVIDIA Jetson Orin Nano", "cpuinfo": A72.replace("108", "125")},  # not known to be wrong
    ],
)
def test_a_real_machine_shows_none(seen):
    assert trace(**seen) is None
