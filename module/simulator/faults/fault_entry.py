"""One row of the catalogue of faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Words = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """An id, what it is, when it is counted, and its variants; the first is the usual one.

    `excuse`: why an exchange cannot cause it; then there are no variants.
    """

    fault: str
    title: str
    counts: str = ""
    variants: Mapping[str, tuple[Words, ...]] = field(default_factory=dict)
    excuse: str = ""


def codes(rule: Words, texts: Mapping[str, str]) -> dict[str, tuple[Words, ...]]:
    """One variant per code of `texts`, named by it, with the exchange's text."""
    return {
        code: ({**rule, "answer": "code", "code": code, "message": text},)
        for code, text in texts.items()
    }
