"""The system calls that a locked-in program may still make: none takes a path, an address or another process's id."""

import csv
import functools
import platform
import struct
import sys
from pathlib import Path

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
with Path(__file__).with_name("syscalls.csv").open(encoding="utf-8") as _lines:
    ALLOWED = list(csv.DictReader(_lines))  # name and number on each machine, empty where there is none
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435


@functools.cache
def make_filter() -> bytes:
    """The seccomp filter (struct sock_filter of linux/filter.h) for this machine; empty if there is no table for it. Of
    clone only threads are left. clone3 hides its flags from a filter, so it is said not to exist, and the C library
    takes clone. Another architecture's calls kill; x32 calls have numbers of their own. Source:
    https://man7.org/linux/man-pages/man2/seccomp.2.html."""
    machine = platform.machine()
    if machine not in MACHINES or sys.maxsize < 2**32 or sys.byteorder != "little":
        return b""
    load, equal, has_bits, give = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ, BPF_JMP|JSET, BPF_RET
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x50000 | 1, 0x50000 | 38  # EPERM, ENOSYS
    code = [(load, 0, 0, 4), (equal, 1, 0, MACHINES[machine]), (give, 0, 0, kill), (load, 0, 0, 0)]
    for call in ALLOWED:
        if number := call[machine]:
            code += [(equal, 0, 1, int(number)), (give, 0, 0, allow)]
    code += [(equal, 0, 1, CLONE3), (give, 0, 0, absent), (equal, 1, 0, CLONE[machine]), (give, 0, 0, refuse)]
    code += [(load, 0, 0, 16), (has_bits, 0, 1, 0x10000), (give, 0, 0, allow), (give, 0, 0, refuse)]  # CLONE_THREAD
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
