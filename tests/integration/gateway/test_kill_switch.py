"""Stop beats trade: once a halt is answered, the exchange's own ledger shows no further opening."""

from __future__ import annotations

import contextlib
import threading
from decimal import Decimal

import pytest

from api.halts import HaltPorts, HaltWish, halt, resume
from module.db.repositories.halts import HaltRepository
from module.db.repositories.users import Role, UserRecord
from module.model.errors import Retryable
from module.model.orders import OrderRequest, Outcome, Side, StopPrices
from tests.fakes.watched_account import KeptAlerts
from tests.integration.gateway.conftest import OWNER, Installation

pytestmark = pytest.mark.timeout(120)


def stopper(installation: Installation, alerts: KeptAlerts) -> tuple[HaltPorts, UserRecord]:
    clock = installation.observer
    user = UserRecord(OWNER, "owner", Role.TRADER, True, clock.wall())
    return HaltPorts(HaltRepository(installation.database), alerts, clock), user


def openings(installation: Installation, account_id: str) -> list[str]:
    orders = installation.ledger(account_id)["orders"]
    assert isinstance(orders, list)
    return [order["clientOid"] for order in orders if order["side"] == "buy"]


def test_I22_O8_a_halt_from_two_places_during_trading_is_true_when_it_is_answered(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    alerts = KeptAlerts()
    ports, user = stopper(installation, alerts)
    wish = HaltWish(account_id, everything=False, own_ids=[account_id], reason="enough")
    first = installation.exchange(account_id)
    first.submit(installation.stamp(), [installation.order(Side.BUY, "0.001")])
    traders, turns = 3, 6
    orders = [[installation.order(Side.BUY, "0.001") for _ in range(turns)] for _ in range(traders)]
    stamp = installation.stamp(seconds=600)
    started = threading.Barrier(traders + 2)
    codes: list[str | None] = []
    at_answer: list[tuple[bool, list[str]]] = []

    def trade(mine: list[OrderRequest]) -> None:
        exchange = installation.exchange(account_id)
        started.wait(30)
        for order in mine:
            with contextlib.suppress(Retryable):
                codes.extend(r.code for r in exchange.submit(stamp, [order]))
        exchange.close()

    def stop() -> None:
        started.wait(30)
        answer = halt(ports, user, wish).document
        at_answer.append((answer["settled"] is True, openings(installation, account_id)))

    threads = [threading.Thread(target=trade, args=(mine,)) for mine in orders]
    threads += [threading.Thread(target=stop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [settled for settled, _ in at_answer] == [True, True]
    assert [names for _, names in at_answer] == [openings(installation, account_id)] * 2
    assert "kill-switch" in codes
    assert len(alerts.of_kind("halted")) == 1
    first.close()


def test_I22_reductions_and_stops_leave_while_an_account_is_halted_and_a_resume_lifts_it(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    ports, user = stopper(installation, KeptAlerts())
    wish = HaltWish(None, everything=False, own_ids=[account_id], reason="look at it")
    exchange = installation.exchange(account_id)
    exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.02")])
    installation.clock.sleep(3)
    halt(ports, user, wish)
    (opening,) = exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    assert opening.code == "kill-switch"
    assert "look at it" in str(opening.message)
    loss = installation.price(exchange, "0.9")
    assert exchange.set_stops(installation.stamp(), "BTCUSDT", StopPrices(loss)).stop_loss == loss
    closing = installation.order(Side.SELL, "0.01", reduce_only=True)
    assert exchange.submit(installation.stamp(), [closing])[0].outcome is Outcome.ACCEPTED
    assert resume(ports, user, wish).document["message"] == "1 account may open again"
    installation.clock.sleep(3)
    (again,) = exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    assert again.outcome is Outcome.ACCEPTED
    installation.clock.sleep(3)
    held = {position.symbol: position.size for position in exchange.snapshot().positions}
    assert held == {"BTCUSDT": Decimal("0.02")}
    exchange.close()
