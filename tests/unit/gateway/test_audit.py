"""Promise: an audit row for every write, and no wanted stop forgotten, whatever Postgres does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from module.db.repositories.gateway_writes import Author, WriteEntry, WriteOutcome
from module.gateway.service import Gateway
from module.model.errors import Unavailable
from module.model.orders import Outcome, StopPrices
from tests.fakes.gateway_rig import GatewayRig, buy, sell

pytestmark = pytest.mark.timeout(60)
Late = tuple[WriteEntry, WriteOutcome, Mapping[str, object], datetime]
STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))
LOWER = StopPrices(Decimal("54000.5"), Decimal("66000.1"))


@pytest.fixture
def rig() -> GatewayRig:
    found = GatewayRig()
    found.gateway.submit("acc", found.stamp(), [buy(size="0.1", stops=STOPS)])
    return found


def die(rig: GatewayRig, gateway: Gateway) -> None:
    """As SIGKILL does: the locks go, the files stay, nothing is tidied up."""
    spool = gateway._desk.audit._spool
    assert spool is not None
    os.close(spool._file)
    rig.postgres.owner = None


def kinds(rig: GatewayRig) -> list[tuple[str, str | None, str | None]]:
    return [(w.kind, w.client_id, w.outcome) for w in rig.postgres.writes[1:]]


def test_what_left_without_postgres_is_on_record_in_its_order(rig: GatewayRig) -> None:
    rig.postgres.away = True
    for client_id in ("af-2", "af-3"):
        (result,) = rig.gateway.submit("acc", rig.stamp(), [sell(client_id, "0.01")])
        assert result.outcome is Outcome.ACCEPTED
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", LOWER)
    assert rig.gateway.health()["spooled"]
    rig.postgres.away = False
    rig.gateway.protect_now("acc")
    assert kinds(rig) == [
        ("order", "af-2", "accepted"),
        ("order", "af-3", "accepted"),
        ("stops", None, "accepted"),
    ]
    assert rig.postgres.wanted[("acc", "BTCUSDT")].stops == LOWER
    assert rig.gateway.health()["spooled"] == 0


def test_a_long_spool_comes_home_bit_by_bit_and_keeps_no_look_waiting(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.postgres.away = True
    names = [f"af-{number}" for number in range(2, 8)]
    for client_id in names:
        rig.gateway.submit("acc", rig.stamp(), [sell(client_id, "0.01")])
    rig.postgres.away = False
    audit = rig.gateway._desk.audit
    add_late = audit.writes.add_late

    def slowly(author: Author, entries: Iterable[Late]) -> None:
        rig.clock.advance(0.6)
        add_late(author, entries)

    monkeypatch.setattr(audit.writes, "add_late", slowly)
    assert not audit.try_flush()
    assert [row[1] for row in kinds(rig)] == names[:2]
    assert [audit.try_flush() for _ in range(4)][-1]
    assert kinds(rig) == [("order", name, "accepted") for name in names]


def test_E3_a_gateway_killed_while_postgres_is_away_has_forgotten_nothing(rig: GatewayRig) -> None:
    rig.postgres.away = True
    rig.gateway.submit("acc", rig.stamp(), [sell("af-2", "0.01")])
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", LOWER)
    die(rig, rig.gateway)
    rig.postgres.away = False
    rig.venue.stops.clear()
    heir = rig.another("gw-2")
    assert heir.protect_now("acc") == ()
    assert rig.venue._positions()[0].stops == LOWER
    assert kinds(rig)[:2] == [("order", "af-2", "accepted"), ("stops", None, "accepted")]


def test_a_gateway_killed_between_sending_and_keeping_leaves_an_unknown_write(
    rig: GatewayRig,
) -> None:
    rig.postgres.away = True
    audit = rig.gateway._desk.audit
    audit.end_late = lambda *_: None  # type: ignore[method-assign]  # it dies before this
    rig.gateway.submit("acc", rig.stamp(), [sell("af-2", "0.01")])
    die(rig, rig.gateway)
    rig.postgres.away = False
    heir = rig.another("gw-2")
    heir.protect_now("acc")
    assert kinds(rig) == [("order", "af-2", "accepted")], "it was asked for, and found"


def test_a_record_that_was_stored_before_the_process_died_is_not_stored_twice(
    rig: GatewayRig,
) -> None:
    rig.postgres.away = True
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", LOWER)
    spool = rig.gateway._desk.audit._spool
    assert spool is not None
    rig.postgres.away = False
    content = spool._path.read_bytes()
    rig.gateway.protect_now("acc")
    spool._path.write_bytes(content)  # stored, but the process died before it could forget
    die(rig, rig.gateway)
    rig.another("gw-2").protect_now("acc")
    assert kinds(rig) == [("stops", None, "accepted")]


def test_an_old_wish_that_comes_home_late_does_not_replace_a_newer_one(rig: GatewayRig) -> None:
    rig.postgres.away = True
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", LOWER)
    die(rig, rig.gateway)
    rig.postgres.away = False
    newer = rig.another("gw-2")
    newer._desk.audit.adopt = lambda: 0  # type: ignore[method-assign]  # on another machine
    rig.clock.advance(1)
    newer.set_stops("acc", rig.stamp(), "BTCUSDT", STOPS)
    rig.postgres.owner = None
    rig.another("gw-3").protect_now("acc")
    assert rig.venue._positions()[0].stops == STOPS


def test_without_a_place_to_keep_it_a_session_writes_nothing_and_the_guard_protects(
    rig: GatewayRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.postgres.away = True
    spool = rig.gateway._desk.audit._spool
    assert spool is not None
    monkeypatch.setattr("module.gateway.spool.BYTES_MAX", 10)
    before = len(rig.venue.orders)
    with pytest.raises(Unavailable, match="full"):
        rig.gateway.submit("acc", rig.stamp(), [sell("af-2", "0.01")])
    assert len(rig.venue.orders) == before
    rig.venue.stops.clear()
    rig.gateway._guard.look(rig.gateway._desk.open("acc"), thorough=True)
    assert rig.venue._positions()[0].stops == STOPS
