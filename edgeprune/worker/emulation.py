"""Whether an emulator runs this machine's programs. Any one trace suffices: each can be hidden, all together hardly.

Sources: proc(5); Documentation/admin-guide/sysctl/kernel.rst, "arch" (Linux 6.1); Arm Architecture Reference Manual,
MIDR_EL1 (implementer 0x00 is reserved for software); QEMU's linux-user/syscall.c, which rewrites /proc/self and
/proc/PID for the program it runs, but not /proc/thread-self; and target/arm/internals.h, the rate of its counter.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_EMULATORS = re.compile(r"(?m)(?:^|[/ ])(qemu-\w[\w.-]*|rosetta\w*|box(?:64|86)|FEXInterpreter)(?:/|$)")
_VARIABLES = ("QEMU_CPU=", "QEMU_LD_PREFIX=")
_TICKS = "125.00"
"""BogoMIPS of Linux on ARM are twice its counter's rate in MHz: QEMU's counter runs at 62.5 MHz, that of a Pi 3 at 19.2
and that of a Pi 4 or 5 at 54."""


def emulator(machine: str, cpuinfo: str, model: str, read: Callable[[str], str | None]) -> str | None:
    """What shows that programs here are emulated; None if nothing does.

    Args:
        machine: as `uname -m` says, empty if it does not; an emulator answers with what it pretends to be.
        cpuinfo: text of /proc/cpuinfo.
        model: of the board, as its device tree says; empty if it has none.
        read: a file's text; None where it cannot be read.
    """
    return _foreign_kernel(machine, read) or _program(read) or _processor(_family(machine), cpuinfo, model)


def _foreign_kernel(machine: str, read: Callable[[str], str | None]) -> str | None:
    """The kernel's own architecture; a 32-bit system on a 64-bit kernel is of one family with it."""
    kernel = (read("/proc/sys/kernel/arch") or machine).strip()
    return (
        None if not machine or _family(kernel) == _family(machine) else f"{machine} programs on a kernel for {kernel}"
    )


def _program(read: Callable[[str], str | None]) -> str | None:
    """The emulator itself: it was started in the program's place, and lies in its memory."""
    for path in ("/proc/thread-self/cmdline", "/proc/thread-self/maps"):
        text = read(path) or ""
        found = _EMULATORS.search(text.partition("\0")[0] if path.endswith("cmdline") else text)
        if found:
            return f"{found[1]} in {path}"
    variables = (read("/proc/self/environ") or "").split("\0")
    return next((f"the variable {text.partition('=')[0]}" for text in variables if text.startswith(_VARIABLES)), None)


def _processor(family: str, cpuinfo: str, model: str) -> str | None:
    """A processor of another kind than the programs, or one that only QEMU has."""
    if family == "arm" and re.search(r"(?m)^vendor_id\s*:", cpuinfo):
        return "ARM programs on an x86 processor"
    if family == "x86" and re.search(r"(?m)^CPU implementer\s*:", cpuinfo):
        return "x86 programs on an ARM processor"
    if re.search(r"(?m)^model name\s*:\s*QEMU TCG", cpuinfo):
        return "a processor that QEMU calculates"
    if re.search(r"(?m)^CPU implementer\s*:\s*0x00\s*$", cpuinfo):
        return "a processor without a maker"
    a_pi = model.startswith("Raspberry Pi")
    if (a_pi or model == "linux,dummy-virt") and re.search(rf"(?m)^BogoMIPS\s*:\s*{re.escape(_TICKS)}$", cpuinfo):
        return f"{model} with the counter of QEMU"
    return None


def _family(machine: str) -> str:
    """Architectures one kernel runs both of, under one name."""
    if machine.startswith(("arm", "aarch64")):
        return "arm"
    return "x86" if re.fullmatch(r"x86_64|i\d86|amd64", machine) else machine
