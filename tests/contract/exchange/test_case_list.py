"""docs/venues.md lists the cases of the suite, all of them, with what each asks of a venue."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from module.exchange.bitget_futures import BitgetFutures
from module.exchange.bitget_spot import BitgetSpot
from module.exchange.venue import Ability
from tests.contract.exchange import (
    test_venue_account,
    test_venue_candles,
    test_venue_orders,
    test_venue_stops,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "venues.md"
SUITE = (test_venue_orders, test_venue_stops, test_venue_account, test_venue_candles)


def cases_of(suite: ModuleType) -> list[tuple[str, str]]:
    """Each case of a module and what it asks for, as the page spells it."""
    found = []
    for name, case in vars(suite).items():
        if not name.startswith("test_"):
            continue
        marks = getattr(case, "pytestmark", [])
        needed = [f"`{what}`" for m in marks if m.name == "needs" for what in m.args]
        lacking = [f"no `{what}`" for m in marks if m.name == "lacks" for what in m.args]
        found.append((name.removeprefix("test_").replace("_", " "), ", ".join(needed + lacking)))
    return found


def test_every_case_is_listed_with_what_it_asks_for_and_no_other() -> None:
    section = PAGE.read_text().partition("## The cases")[2]
    listed = re.findall(r"^\| ([^|]+?) \| ?([^|]*?) ?\|$", section, re.M)
    assert listed[1:] == [case for suite in SUITE for case in cases_of(suite)]


def test_every_ability_is_listed_with_the_adapters_that_have_it() -> None:
    table = re.findall(
        r"^\| `([a-z-]+)` \| [^|]+ \| (yes)? ?\| ?(yes)? ?\|$", PAGE.read_text(), re.M
    )
    futures, spot = (
        adapter.abilities.__get__(object.__new__(adapter))
        for adapter in (BitgetFutures, BitgetSpot)
    )
    assert table == [
        (str(a), "yes" if a in futures else "", "yes" if a in spot else "")
        for a in (Ability(name) for name, _, _ in table)
    ]
    assert {name for name, _, _ in table} == {str(a) for a in Ability}
