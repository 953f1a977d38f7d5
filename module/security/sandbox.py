"""The wall around user code: what a child gives up before it runs a line of it.

Called in a fresh child of the runner host, in this order: own session, dies with its host, no
descriptors but its channel, resource limits, no new privileges, Landlock, seccomp. Landlock leaves
read access to the interpreter and its packages and nothing else: no other file, no TCP, no signal
to anybody outside. Seccomp takes the rest: no new process, no socket, no ptrace (`seccomp.py`).
Where the kernel has not both the child refuses to run, unless the installation declares that a pod
is the boundary.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import site
import struct
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from module.model.errors import Forbidden
from module.security.seccomp import refuse_system_calls

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_ACCESS_FS_EXECUTE = 1 << 0
_ACCESS_FS_READ_FILE = 1 << 2
_ACCESS_FS_READ_DIR = 1 << 3
_ACCESS_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ACCESS_NET_TCP = 0b11
_SCOPE_ABSTRACT_UNIX_AND_SIGNALS = 0b11
_ABI_NET = 4
_ABI_SCOPE = 6
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # packages imported later


@dataclass(frozen=True, slots=True)
class Limits:
    """What a strategy may use: CPU seconds, extra memory in MiB, open files."""

    cpu_s: int
    memory_mb: int
    files: int = 64


def lock_down(limits: Limits, channel: int, *, pod_is_boundary: bool) -> None:
    """Give up everything user code must not have; `channel` is the one descriptor that stays.

    Forbidden when the kernel cannot enforce it and no pod boundary was declared.
    """
    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _close_descriptors(channel)
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    _limit(limits)
    readable = _interpreter_folders()
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Forbidden("the kernel refused no_new_privs: strategies are not run here")
    abi = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _RULESET_VERSION)
    if abi >= 1:
        _restrict(libc, abi, readable)
    if (not refuse_system_calls(libc) or abi < 1) and not pod_is_boundary:
        missing = "Landlock" if abi < 1 else "a seccomp filter for this machine"
        raise Forbidden(
            f"this kernel has not {missing}, so strategies cannot be walled in; run them in a pod "
            "of their own and set AIFAP_SANDBOX=pod"
        )


def _close_descriptors(channel: int) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(quiet, standard)
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(3, channel)
    os.closerange(channel + 1, min(highest, 1 << 16))


def _limit(limits: Limits) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = used + limits.memory_mb * 1024 * 1024
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (value, value))


def _interpreter_folders() -> list[str]:
    """Where Python and its packages live; what an `import` in user code may read."""
    found = {sys.base_prefix, sys.prefix, *site.getsitepackages()}
    found |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {"/usr/share/zoneinfo", "/lib", "/usr/lib", "/lib64"}
    return sorted(folder for folder in found if folder and Path(folder).is_dir())


def _restrict(libc: ctypes.CDLL, abi: int, readable: list[str]) -> None:
    handled_fs = max(mask for since, mask in _ACCESS_FS_BY_ABI.items() if since <= abi)
    attributes = struct.pack(
        "QQQ",
        handled_fs,
        _ACCESS_NET_TCP if abi >= _ABI_NET else 0,
        _SCOPE_ABSTRACT_UNIX_AND_SIGNALS if abi >= _ABI_SCOPE else 0,
    )
    size = 24 if abi >= _ABI_SCOPE else 16 if abi >= _ABI_NET else 8
    ruleset = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        raise Forbidden(f"Landlock refused the rules (errno {ctypes.get_errno()})")
    access = _ACCESS_FS_READ_FILE | _ACCESS_FS_READ_DIR | _ACCESS_FS_EXECUTE
    for folder in readable:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", access, descriptor)
            libc.syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
            os.close(descriptor)
    if libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise Forbidden(f"Landlock could not be entered (errno {ctypes.get_errno()})")
    os.close(ruleset)
