"""What a client gets instead of the honest answer: pure, over bytes that are already written.

The true data of an answer is changed in `fault_edits`, before it is written.
"""

from __future__ import annotations

from dataclasses import replace

from module.simulator.faults.faults import FaultAnswer, FaultWords
from module.simulator.wire.wire_answer import Ending, Reply, WireAnswer, envelope

_REFUSED_STATUS = 400
_BROKEN_STATUS = 502


def spoil(words: FaultWords, honest: WireAnswer, now_ms: int) -> Reply:
    """The reply that `words` make of the honest answer."""
    delay_s = float(words.delay_s)
    match words.answer:
        case FaultAnswer.HONEST:
            kept = words.content_type or honest.content_type
            return Reply(replace(honest, content_type=kept), delay_s=delay_s)
        case FaultAnswer.DROP | FaultAnswer.HOLD_DROP:
            return Reply(honest, Ending.RESET, delay_s)
        case FaultAnswer.HANG | FaultAnswer.HOLD:
            return Reply(honest, Ending.SILENT, delay_s)
        case FaultAnswer.CUT:
            return Reply(honest, Ending.CUT, delay_s)
        case FaultAnswer.STATUS:
            return Reply(_status_answer(words), delay_s=delay_s)
        case FaultAnswer.CODE:
            status = words.status or _REFUSED_STATUS
            answer = envelope(
                now_ms, None, words.code, words.message, status=status, headers=honest.headers
            )
            return Reply(answer, delay_s=delay_s)
        case FaultAnswer.NULL:
            return Reply(envelope(now_ms, None, headers=honest.headers), delay_s=delay_s)
        case FaultAnswer.TRUNCATE:
            half = honest.body[: len(honest.body) // 2]
            return Reply(WireAnswer(200, half, honest.headers), delay_s=delay_s)
        case FaultAnswer.BODY:
            kind = words.content_type or "application/json"
            return Reply(
                WireAnswer(200, words.body.encode(), honest.headers, kind), delay_s=delay_s
            )


def _status_answer(words: FaultWords) -> WireAnswer:
    status = words.status or _BROKEN_STATUS
    headers = {} if words.retry_after_s is None else {"retry-after": str(words.retry_after_s)}
    text = words.body or f"<html>{status}</html>"
    return WireAnswer(status, text.encode(), headers, words.content_type or "text/html")
