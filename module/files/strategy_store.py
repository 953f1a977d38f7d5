"""Strategies as files: `<data>/strategies/<user>/<name>/<sha256>/{strategy.py,config.json}`.

A version is immutable and named by what is in it; `latest` beside the versions names the newest.
Built-in strategies are readable by everybody under their names; a user's own strategy of the same
name comes first. Nothing of a strategy is ever run here: it is decoded, parsed and looked at. A
name is a label from an allow-list of characters, never a path.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from module.files.atomic import (
    create_durably,
    make_private_folder,
    read_regular,
    write_durably,
)
from module.model.errors import InvalidInput, InvariantViolated, NotFound

SOURCE_BYTES_MAX: Final = 256 * 1024
CONFIG_BYTES_MAX: Final = 64 * 1024
VERSIONS_MAX: Final = 200
STRATEGIES_MAX: Final = 200
FUNCTION: Final = "strategy"
LATEST: Final = "latest"
BUILT_INS: Final = Path(__file__).parents[2] / "trading" / "strategies"  # files, not a module
_BUILT_IN_FOLDER: Final = "built-in"
NAME_PATTERN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,47}", re.ASCII)
_OWNER_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,35}", re.ASCII)
_DIGEST_PATTERN: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_RESERVED: Final = frozenset({LATEST, "con", "prn", "aux", "nul"})
# Python 3.11 counts the depth of a tree that it builds for all threads together, and two parses at
# once may end in a SystemError (python/cpython#106905); warning filters are the process's, too.
_ONE_PARSE: Final = threading.Lock()
_INVISIBLE: Final = frozenset(
    "\ufeff\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


@dataclass(frozen=True, slots=True)
class StrategyVersion:
    """One immutable version. `config` is the file's; a request's config overrides it."""

    name: str
    digest: str
    source: str
    config: Mapping[str, object]
    built_in: bool


@dataclass(frozen=True, slots=True)
class StrategyName:
    """One strategy that somebody can run, with its newest version."""

    name: str
    digest: str
    built_in: bool


class StrategyStore:
    """The strategies of an installation. `built_in_folder` holds one file per built-in."""

    def __init__(self, data_dir: Path, built_in_folder: Path = BUILT_INS) -> None:
        self._folder = data_dir / "strategies"
        self._built_in_folder = built_in_folder

    def save(
        self, owner_id: str, name: str, source: bytes, config: Mapping[str, object]
    ) -> StrategyVersion:
        """Keep a version and make it the newest. The same content again is the same version.

        InvalidInput says what is wrong: the name, the encoding, the line that does not parse, the
        missing function, a size. Nothing is written then.
        """
        check_name(name)
        text = check_source(source)
        config_text = check_config(config)
        digest = version_digest(text, config_text)
        folder = self._owner_folder(owner_id) / name
        if not folder.exists() and len(self._names(owner_id)) >= STRATEGIES_MAX:
            raise InvalidInput(f"you have {STRATEGIES_MAX} strategies; use one of their names")
        make_private_folder(folder)
        if not (folder / digest).exists() and len(_digests(folder)) >= VERSIONS_MAX:
            raise InvalidInput(f"{name} has {VERSIONS_MAX} versions; go on under another name")
        self._write(folder, text, config_text)
        write_durably(folder / LATEST, digest.encode())
        return StrategyVersion(name, digest, text, json.loads(config_text), built_in=False)

    def latest(self, owner_id: str, name: str) -> StrategyVersion:
        """The newest version of the owner's strategy, else the built-in of that name."""
        check_name(name)
        folder = self._owner_folder(owner_id) / name
        try:
            digest = read_regular(folder / LATEST, 64).decode("ascii")
        except FileNotFoundError:
            return self._built_in(name)
        return self._version(folder, name, digest)

    def read_version(self, owner_id: str, name: str, digest: str) -> StrategyVersion:
        """Exactly this version: what a session was pinned to. NotFound where there is none."""
        check_name(name)
        if not _DIGEST_PATTERN.fullmatch(digest):
            raise InvalidInput("a version is named by the 64 hex digits of its SHA-256")
        folder = self._owner_folder(owner_id) / name
        if (folder / digest).is_dir():
            return self._version(folder, name, digest)
        kept = self._folder / _BUILT_IN_FOLDER / name
        if (kept / digest).is_dir():
            return replace(self._version(kept, name, digest), built_in=True)
        built_in = self._built_in(name)
        if built_in.digest != digest:
            raise NotFound(f"strategy {name!r} has no version {digest[:12]}")
        return built_in

    def pin(self, version: StrategyVersion) -> None:
        """Make sure `version` can be read later: a built-in may change with the next release, a
        session that was started with it goes on with this one."""
        if version.built_in:
            self._write(self._folder / _BUILT_IN_FOLDER / version.name, version.source, "{}")

    def list_for(self, owner_id: str) -> list[StrategyName]:
        """What the owner can run: their own, then the built-in ones they do not shadow."""
        own = []
        for name in self._names(owner_id):
            digest = read_regular(self._owner_folder(owner_id) / name / LATEST, 64).decode("ascii")
            own.append(StrategyName(name, digest, built_in=False))
        taken = {item.name for item in own}
        built_in = [
            StrategyName(path.stem, self._built_in(path.stem).digest, built_in=True)
            for path in sorted(self._built_in_folder.glob("*.py"))
            if NAME_PATTERN.fullmatch(path.stem) and path.stem not in taken
        ]
        return own + built_in

    def _write(self, folder: Path, text: str, config_text: str) -> None:
        version = make_private_folder(folder / version_digest(text, config_text))
        create_durably(version / "config.json", config_text.encode())
        create_durably(version / "strategy.py", text.encode())

    def _names(self, owner_id: str) -> list[str]:
        folder = self._owner_folder(owner_id)
        if not folder.is_dir():
            return []
        return sorted(
            path.name
            for path in folder.iterdir()
            if NAME_PATTERN.fullmatch(path.name) and (path / LATEST).is_file()
        )

    def _owner_folder(self, owner_id: str) -> Path:
        if not _OWNER_PATTERN.fullmatch(owner_id):
            raise InvariantViolated(f"not the id of a user: {owner_id[:40]!r}")
        return self._folder / owner_id

    def _version(self, folder: Path, name: str, digest: str) -> StrategyVersion:
        if not _DIGEST_PATTERN.fullmatch(digest):
            raise InvariantViolated(f"{folder / LATEST} names no version; upload {name} again")
        try:
            text = read_regular(folder / digest / "strategy.py", SOURCE_BYTES_MAX).decode("utf-8")
            config = read_regular(folder / digest / "config.json", CONFIG_BYTES_MAX).decode("utf-8")
        except FileNotFoundError as error:
            raise NotFound(f"strategy {name!r} has no version {digest[:12]}") from error
        if version_digest(text, config) != digest:
            raise InvariantViolated(
                f"version {digest[:12]} of strategy {name!r} was altered on disk; it is not run"
            )
        return StrategyVersion(name, digest, text, json.loads(config), built_in=False)

    def _built_in(self, name: str) -> StrategyVersion:
        try:
            raw = read_regular(self._built_in_folder / f"{name}.py", SOURCE_BYTES_MAX)
        except FileNotFoundError as error:
            raise NotFound(f"there is no strategy {name!r}; upload it, or list them") from error
        text = raw.decode("utf-8")
        return StrategyVersion(name, version_digest(text, "{}"), text, {}, built_in=True)


def check_name(name: str) -> str:
    """`name` if it may name a strategy; InvalidInput says what may."""
    if not NAME_PATTERN.fullmatch(name) or name.lower() in _RESERVED:
        raise InvalidInput(
            f"not a name for a strategy: {name[:60]!r}; take a letter, then up to 47 letters, "
            "digits, _ or -"
        )
    return name


def check_source(source: bytes) -> str:
    """The text of a strategy that parses and has the function; InvalidInput names the line."""
    if len(source) > SOURCE_BYTES_MAX:
        raise InvalidInput(
            f"the strategy is {len(source)} bytes long; at most {SOURCE_BYTES_MAX} are taken"
        )
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the strategy is not UTF-8 text (byte {error.start})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        for character in line.removesuffix("\r"):
            if character in _INVISIBLE or _is_control(character):
                raise InvalidInput(
                    f"line {number} holds the invisible character U+{ord(character):04X}; remove it"
                )
    _check_function(_parsed(text))
    return text


def version_digest(text: str, config_text: str) -> str:
    """What names a version: SHA-256 over the SHA-256 of each of its two files."""
    parts = (hashlib.sha256(part.encode()).hexdigest() for part in (text, config_text))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _parsed(text: str) -> ast.Module:
    try:
        with _ONE_PARSE, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a strange escape is the owner's business
            return ast.parse(text, filename="strategy.py")
    except SyntaxError as error:
        raise InvalidInput(
            f"the strategy does not parse: line {error.lineno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"the strategy does not parse: {type(error).__name__}") from error


def _check_function(tree: ast.Module) -> None:
    found = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == FUNCTION
    ]
    if not found:
        raise InvalidInput(f"the strategy has no function {FUNCTION}(context, config_dict)")
    function = found[-1]
    line = f"line {function.lineno}"
    if isinstance(function, ast.AsyncFunctionDef):
        raise InvalidInput(f"{line}: {FUNCTION} must be a plain function, not async")
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args]
    required_by_name = [d for d in arguments.kw_defaults if d is None]
    optional = len(arguments.defaults)
    takes_two = len(names) - optional <= 2 and (len(names) >= 2 or arguments.vararg is not None)
    if not takes_two or required_by_name:
        raise InvalidInput(f"{line}: {FUNCTION} must take two parameters: (context, config_dict)")


def _is_control(character: str) -> bool:
    return (ord(character) < 0x20 and character not in "\t\f") or ord(character) == 0x7F


def check_config(config: Mapping[str, object]) -> str:
    """The one spelling of a config; InvalidInput when it is no JSON object or too long."""
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the config is not a JSON object: {error}") from error
    if len(text) > CONFIG_BYTES_MAX:
        raise InvalidInput(f"the config is {len(text)} bytes long; at most {CONFIG_BYTES_MAX}")
    return text


def _digests(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if _DIGEST_PATTERN.fullmatch(path.name)]
