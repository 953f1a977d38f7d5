"""The system call filter as a program: run here, instruction by instruction, for both machines."""

from __future__ import annotations

import struct

import pytest

from module.security.seccomp import build_filter

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PID = 4711


def run_filter(
    machine: str, number: int, arguments: tuple[int, ...] = (), architecture: int | None = None
) -> int:
    """What the kernel would do with this call."""
    program = build_filter(machine, PID)
    assert program is not None
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture or MACHINES[machine], 0, *padded)
    place, accumulator = 0, 0
    for _ in range(10_000):
        code, if_true, if_false, value = struct.unpack_from("HBBI", program, place * 8)
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return int(value)
        elif code == 0x15:
            place += if_true if accumulator == value else if_false
        elif code == 0x35:
            place += if_true if accumulator >= value else if_false
        elif code == 0x45:
            place += if_true if accumulator & value else if_false
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
    raise AssertionError("the filter does not end")


@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        # fork, vfork, execve, socket, connect, ptrace, chmod, io_uring_setup, shmget, setrlimit
        ("x86_64", [57, 58, 59, 41, 42, 101, 90, 425, 29, 160]),
        # execve, socket, connect, ptrace, fchmodat, io_uring_setup, shmget, setrlimit
        ("aarch64", [221, 198, 203, 117, 53, 425, 194, 164]),
    ],
)
def test_what_user_code_may_not_do_is_refused(machine: str, numbers: list[int]) -> None:
    assert {run_filter(machine, number) for number in numbers} == {EPERM}


@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        # read, write, open, mmap, sendto, recvfrom, futex, getpid, exit_group, openat, getrandom
        ("x86_64", [0, 1, 2, 9, 44, 45, 202, 39, 231, 257, 318]),
        # read, write, openat, mmap, sendto, recvfrom, futex, getpid, exit_group, getrandom
        ("aarch64", [63, 64, 56, 222, 206, 207, 98, 172, 94, 278]),
    ],
)
def test_what_every_program_needs_is_allowed(machine: str, numbers: list[int]) -> None:
    assert {run_filter(machine, number) for number in numbers} == {ALLOW}


@pytest.mark.parametrize(
    ("machine", "clone", "clone3", "kill", "tgkill", "prctl", "prlimit"),
    [("x86_64", 56, 435, 62, 234, 157, 302), ("aarch64", 220, 435, 129, 131, 167, 261)],
)
def test_some_calls_depend_on_what_they_ask(
    machine: str, clone: int, clone3: int, kill: int, tgkill: int, prctl: int, prlimit: int
) -> None:
    thread = 0x3D0F00
    assert run_filter(machine, clone, (thread,)) == ALLOW
    assert run_filter(machine, clone, (17,)) == EPERM
    assert run_filter(machine, clone3) == ENOSYS
    for call in (kill, tgkill):
        assert run_filter(machine, call, (PID, 6)) == ALLOW
        assert run_filter(machine, call, (PID + 1, 6)) == EPERM
        assert run_filter(machine, call, (2**64 - 1, 9)) == EPERM
    assert run_filter(machine, prctl, (15,)) == ALLOW
    assert run_filter(machine, prctl, (1, 0)) == EPERM
    assert run_filter(machine, prctl, (4, 1)) == EPERM
    assert run_filter(machine, prlimit, (0, 9, 0, 0x7FFF_1234)) == ALLOW
    assert run_filter(machine, prlimit, (0, 9, 0x7FFF_1234, 0)) == EPERM
    assert run_filter(machine, prlimit, (0, 9, 1 << 32, 0)) == EPERM


def test_calls_of_another_machine_are_refused() -> None:
    assert run_filter("x86_64", 0, architecture=0x40000003) == EPERM
    assert run_filter("x86_64", 0x40000000) == EPERM


def test_an_unknown_machine_has_no_filter() -> None:
    assert build_filter("s390x", PID) is None
