"""A document under a seal: its canonical text and the SHA-256 of it. What is altered is noticed.

Letters on disk, their archive and their rows in Postgres carry the same seal, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from module.model.canonical import Spelled, canonical_json
from module.model.errors import InvariantViolated

_HEAD = b'{"document":'
_MIDDLE = b',"sha256":"'
_TAIL = b'"}'
_SEAL_LENGTH = 64


def seal(document: Mapping[str, object]) -> bytes:
    """`{"document":…,"sha256":"…"}`: one spelling for one document. Floats are refused."""
    body = canonical_json(document).encode()
    return _HEAD + body + _MIDDLE + hashlib.sha256(body).hexdigest().encode() + _TAIL


def unseal(content: bytes, name: str) -> dict[str, object]:
    """The document of what `seal` made. InvariantViolated names `name` when it is anything else:
    torn, altered in one bit, empty, or no object."""
    end = len(content) - len(_TAIL) - _SEAL_LENGTH - len(_MIDDLE)
    body = content[len(_HEAD) : max(end, 0)]
    expected = _HEAD + body + _MIDDLE + hashlib.sha256(body).hexdigest().encode() + _TAIL
    if content != expected:
        raise InvariantViolated(
            f"{name} does not match its own digest ({len(content)} bytes): it was torn or altered"
        )
    try:
        text = body.decode()
        document = Spelled.read(text)
        if document is None:
            document = json.loads(text)
    except ValueError as error:
        raise InvariantViolated(f"{name} is sealed but no JSON ({error})") from error
    if not isinstance(document, dict):
        raise InvariantViolated(f"{name} holds no object")
    return document


def stamp_of(document: Mapping[str, object]) -> tuple[int, int]:
    """(epoch, revision) of a letter: of two letters of a session the greater is the newer."""
    try:
        return int(str(document["epoch"])), int(str(document["revision"]))
    except (KeyError, ValueError) as error:
        raise InvariantViolated(f"a letter without epoch and revision ({error!r})") from error
