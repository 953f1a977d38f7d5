"""What Bitget's codes mean for us. Our own table: ccxt's exception classes do not say whether an
order may exist (reference: Bitget REST v2 error tables and recorded answers).

A code that is not in the table is UNKNOWN for a write: it may have happened.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SUCCESS: Final = "00000"


class Verdict(StrEnum):
    """What is proven by a code."""

    REJECTED = "rejected"
    UNKNOWN = "unknown"
    DUPLICATE = "duplicate"
    RATE_LIMITED = "rate-limited"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    MAINTENANCE = "maintenance"
    NOT_FOUND = "not-found"
    NO_POSITION = "no-position"
    WRONG_SIDE = "wrong-side"
    NO_CHANGE = "no-change"
    UNIFIED = "unified-account"
    RULES = "rules"
    STOP_EXISTS = "stop-exists"
    STOPS_FULL = "stops-full"


def _table() -> dict[str, Verdict]:
    rows: dict[Verdict, str] = {
        # the first one got there: look, never send under another id (A6)
        Verdict.DUPLICATE: "40786 40708 43118 45034 50060 25212",
        # timed out, system or service error, concurrent operation: it may exist (A11)
        Verdict.UNKNOWN: "40010 40015 40725 45001 31016 40908 40910 12018",
        Verdict.RATE_LIMITED: "429 30007 45129",
        Verdict.CREDENTIALS: (
            "40001 40002 40003 40005 40006 40009 40011 40012 40014 40018 40036 40037 40038 40041 "
            "40031 40099"
        ),
        # a key of the other account family: 40085 from v2, 40084 from v3
        Verdict.UNIFIED: "40084 40085",
        Verdict.CLOCK: "40008 40078",
        Verdict.MAINTENANCE: "40200 45043 43071",
        # of an order, or a spot trigger order, that was asked for, moved or cancelled
        Verdict.NOT_FOUND: "40109 40768 43001 43025 45055 22001",
        Verdict.NO_POSITION: "22002 43023 40891 45068 40837 43020",
        Verdict.WRONG_SIDE: (
            "40834 40836 40917 45062 45066 45067 45122 40915 40830 40832 45060 45061 45063 45064 "
            "45065"
        ),
        Verdict.NO_CHANGE: "40814 45054",
        # size or price against the trading rules: ours may be old (A19)
        Verdict.RULES: (
            "45110 43027 45111 43006 45112 43007 22038 40808 45115 45035 43028 43010 41103"
        ),
        Verdict.STOP_EXISTS: "43030 43031",
        Verdict.STOPS_FULL: "40890",
        Verdict.REJECTED: (
            # address, parameters
            "40404 40019 40811 40017 40020 400172 00172 00001 40053 40034 40072 40102 40304 40305 "
            "40306 40812 40912 40924 40925 40923 22003 40079 "
            # money, price bands, number of orders, tiers
            "40762 40754 43012 45002 50020 43008 43009 22006 22007 22008 22009 40815 40816 "
            "40921 45120 45118 40723 40761 43005 40757 45006 40755 43029 40711 40712 41117 45113 "
            # symbol closed, opening or closing forbidden, liquidation under way
            "40309 40845 40844 45119 22039 40931 22043 22044 22045 22067 40308 41114 43115 50004 "
            # position mode, margin mode, leverage
            "40774 40920 43075 45117 40730 45097 45044 45045 40797 43011 "
            # demo trading
            "40081 40105 40110 22030"
        ),
    }
    return {code: verdict for verdict, codes in rows.items() for code in codes.split()}


CODES: Final[dict[str, Verdict]] = _table()


def verdict_of(code: str) -> Verdict:
    """What `code` proves; UNKNOWN for a code that nobody has listed."""
    return CODES.get(code, Verdict.UNKNOWN)
