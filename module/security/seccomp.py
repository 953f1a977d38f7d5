"""The system calls that user code may not make: the half of the wall that Landlock does not build.

Landlock guards files, TCP and signals. This filter takes away what is left: new processes and
programs, sockets of every kind (UDP and Unix ones too), signals to others, other processes'
memory, owners and modes of files, memory that outlives the process, raised limits, io_uring.
A refused call fails with EPERM, in Python a PermissionError. Once set it cannot be undone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 1  # EPERM
_NOT_THERE = 0x00050000 | 38  # ENOSYS: libc falls back to an older call
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x00010000
_X32_NUMBERS = 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4

# machine: (audit architecture, place of each name's number in the tables below)
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# name: (x86_64, aarch64); None where the machine has no such call
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # processes and programs (threads are clone with CLONE_THREAD, below)
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # sockets; the channel is open already and needs none of these
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # others' memory, signals, descriptors
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    # owners, modes, times and attributes of files (Landlock does not guard them)
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    # memory and queues that outlive the process, or that two strategies could share
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "mq_open": (240, 180),
    # limits, namespaces, mounts, kernel
    "setrlimit": (160, 164),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "acct": (163, 89),
    "syslog": (103, 116),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_KILL, _TGKILL = (62, 129), (234, 131)
_PRCTL, _PRLIMIT = (157, 167), (302, 261)


def refuse_system_calls(libc: ctypes.CDLL) -> bool:
    """Set the filter for this process and all its threads to come; whether the kernel took it.

    Needs no_new_privs. False on a machine whose call numbers are not known here.
    """
    program = build_filter(platform.machine(), os.getpid())
    if program is None:
        return False
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    taken: int = libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0)
    return taken == 0


def build_filter(machine: str, pid: int) -> bytes | None:
    """The filter's instructions for `machine`, for the process `pid`; None where it is unknown."""
    known = _MACHINES.get(machine)
    if known is None:
        return None
    architecture, place = known
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        _line(_EQUAL, architecture, 1, 0),
        _line(_RETURN, _REFUSE),
        _line(_LOAD, _NUMBER),
        _line(_AT_LEAST, _X32_NUMBERS, 0, 1),
        _line(_RETURN, _REFUSE),
        *_when(_CLONE3[place], [_line(_RETURN, _NOT_THERE)]),
        *_when(_CLONE[place], _unless_bit(_CLONE_THREAD)),
        *_when(_KILL[place], _only_if_first_is(pid)),
        *_when(_TGKILL[place], _only_if_first_is(pid)),
        *_when(_PRCTL[place], _unless_first_in(_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE)),
        *_when(_PRLIMIT[place], _only_if_third_is_null()),
    ]
    for numbers in _REFUSED.values():
        number = numbers[place]
        if number is not None:
            lines += _when(number, [_line(_RETURN, _REFUSE)])
    lines.append(_line(_RETURN, _ALLOW))
    return b"".join(lines)


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _when(number: int, block: list[bytes]) -> list[bytes]:
    """`block` (which returns) if the call's number is `number`, else go on behind it."""
    return [_line(_EQUAL, number, 0, len(block)), *block]


def _unless_bit(bit: int) -> list[bytes]:
    return [
        _line(_LOAD, _FIRST_ARGUMENT),
        _line(_ANY_BIT, bit, 1, 0),
        _line(_RETURN, _REFUSE),
        _line(_RETURN, _ALLOW),
    ]


def _only_if_first_is(value: int) -> list[bytes]:
    return [
        _line(_LOAD, _FIRST_ARGUMENT),
        _line(_EQUAL, value, 1, 0),
        _line(_RETURN, _REFUSE),
        _line(_RETURN, _ALLOW),
    ]


def _unless_first_in(first: int, second: int) -> list[bytes]:
    return [
        _line(_LOAD, _FIRST_ARGUMENT),
        _line(_EQUAL, first, 1, 0),
        _line(_EQUAL, second, 0, 1),
        _line(_RETURN, _REFUSE),
        _line(_RETURN, _ALLOW),
    ]


def _only_if_third_is_null() -> list[bytes]:
    """Reading a limit is allowed, setting one (a pointer to the new one) is not."""
    third = _FIRST_ARGUMENT + 16
    return [
        _line(_LOAD, third),
        _line(_EQUAL, 0, 0, 2),
        _line(_LOAD, third + 4),
        _line(_EQUAL, 0, 1, 0),
        _line(_RETURN, _REFUSE),
        _line(_RETURN, _ALLOW),
    ]
