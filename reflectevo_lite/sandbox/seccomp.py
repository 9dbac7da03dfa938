"""The system calls that a locked-in program may still make: none takes a path, an address or another process's id."""

import functools
import platform
import struct
import sys

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH_*
ALLOWED = """
read 0 63, write 1 64, futex 202 98, mmap 9 222, munmap 11 215, mremap 25 216, brk 12 214, mprotect 10 226,
madvise 28 233, close 3 57, fstat 5 80, lseek 8 62, pread64 17 67, writev 20 66, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, getitimer 36 102, setitimer 38 103, alarm 37 -,
nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169,
time 201 -, times 100 153, getrusage 98 165, sched_yield 24 124, sched_getaffinity 204 123, getpid 39 172,
gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, uname 63 160, getrandom 318 278,
set_robust_list 273 99, rseq 334 293, set_tid_address 218 96, restart_syscall 219 128, exit 60 93, exit_group 231 94
"""  # name, number on x86_64, number on aarch64
CLONE, CLONE3 = (56, 220), (435, 435)


@functools.cache
def make_filter() -> bytes:
    """The seccomp filter (struct sock_filter of linux/filter.h) for this machine; empty if there is no table for it. Of
    clone only threads are left. clone3 hides its flags from a filter, so it is said not to exist, and the C library
    takes clone. Another architecture's calls kill; x32 calls have numbers of their own. Source:
    https://man7.org/linux/man-pages/man2/seccomp.2.html."""
    column, arch = MACHINES.get(platform.machine(), (None, None))
    if column is None or sys.maxsize < 2**32 or sys.byteorder != "little":
        return b""
    load, equal, has_bits, give = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ, BPF_JMP|JSET, BPF_RET
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x50000 | 1, 0x50000 | 38  # EPERM, ENOSYS
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill), (load, 0, 0, 0)]
    for entry in ALLOWED.split(","):
        if (number := entry.split()[1 + column]) != "-":
            code += [(equal, 0, 1, int(number)), (give, 0, 0, allow)]
    code += [(equal, 0, 1, CLONE3[column]), (give, 0, 0, absent), (equal, 1, 0, CLONE[column]), (give, 0, 0, refuse)]
    code += [(load, 0, 0, 16), (has_bits, 0, 1, 0x10000), (give, 0, 0, allow), (give, 0, 0, refuse)]  # CLONE_THREAD
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
