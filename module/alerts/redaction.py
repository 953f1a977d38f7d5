"""Takes secrets out of text before it is stored or leaves the installation. PURE.

Two nets: the exact secrets that the caller knows, and shapes that secrets have (keys after a label,
tokens, webhook addresses, credentials in addresses, long random-looking words).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "[redacted]"
_KNOWN_SECRET_LENGTH_MIN = 6

# Every repetition is bounded, so that hostile text costs no more than its length.
_LABELLED = re.compile(
    r"""(?ix) \b ( [a-z0-9_-]{0,40} (?: api[_-]?key | access[_-]?key | secret | passphrase
        | password | passwd | token | signature | access-sign | authorization | cookie )
        [a-z0-9_-]{0,40} )
        ( ["']? \s{0,4} [:=]{1,2} \s{0,4} (?: bearer \s{1,4} | basic \s{1,4} )? ["']? )
        ( (?! (?: (?:bearer|basic) \s{1,4} )? \[redacted\] ) [^\s"',;&]+ )"""
)
_SHAPES = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL),
    re.compile(r"https?://hooks\.slack\.com/\S+", re.IGNORECASE),
    re.compile(r"https?://(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/\S+", re.IGNORECASE),
    re.compile(r"(?<=://)[^\s/@]+(?=@)"),
    re.compile(r"\b(?:aifap|bg|xox[a-z])[_-][A-Za-z0-9_-]{10,}"),
    re.compile(r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"\b[0-9a-fA-F]{32,63}\b(?![0-9a-fA-F])"),
    re.compile(
        r"\b(?=[A-Za-z0-9_-]{0,99}\d)(?=[A-Za-z0-9_-]{0,99}[a-z])(?=[A-Za-z0-9_-]{0,99}[A-Z])"
        r"[A-Za-z0-9_-]{32,}"
    ),
)


def redact(text: str, known_secrets: Iterable[str] = ()) -> str:
    """`text` without anything that is, or looks like, a secret; labels stay, values go.

    "api_key=bg_0a1b…" becomes "api_key=[redacted]". Doing it twice changes nothing.
    """
    for secret in sorted(known_secrets, key=len, reverse=True):
        if len(secret) >= _KNOWN_SECRET_LENGTH_MIN:
            text = text.replace(secret, MASK)
    text = _LABELLED.sub(lambda match: f"{match[1]}{match[2]}{MASK}", text)
    for shape in _SHAPES:
        text = shape.sub(MASK, text)
    return text
