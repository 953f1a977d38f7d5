"""A session's client, the router, the gateway, Postgres and the paper exchange, all real."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
import urllib3
from sqlalchemy import select, update

from module.db.embedded import EmbeddedPostgres
from module.db.platform_tables import Account, AccountCredential, WantedStop
from module.db.repositories.accounts import AccountRepository
from module.exchange.gateway_client import GatewayExchange
from module.model.accounts import BillKind, MarginMode
from module.model.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Retryable,
    StaleWriter,
    TooLate,
    Unauthenticated,
    Unavailable,
)
from module.model.market import MarketType
from module.model.orders import MissingOrder, OrderRequest, Outcome, Passage, Side, StopPrices
from module.security.tokens import mint_grant, service_grant, session_grant
from tests.integration.gateway.conftest import OWNER, SESSION, Installation

pytestmark = pytest.mark.timeout(120)


def test_a_protected_position_from_the_session_to_the_exchange_and_back(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    stops = StopPrices(installation.price(exchange, "0.9"), installation.price(exchange, "1.1"))
    orders = [
        installation.order(Side.BUY, "0.0123", stops=stops),
        installation.order(Side.SELL, "0.5", symbol="ETHUSDT"),
    ]
    results = exchange.submit(installation.stamp(), orders)
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2
    installation.clock.sleep(1)
    snapshot = exchange.snapshot()
    held = {p.symbol: p.size for p in snapshot.positions}
    assert held == {"BTCUSDT": Decimal("0.0123"), "ETHUSDT": Decimal("-0.5")}
    assert next(p for p in snapshot.positions if p.symbol == "BTCUSDT").stops == stops
    assert snapshot.at == installation.clock.now()
    assert exchange.order("BTCUSDT", orders[0].client_id).filled_size == Decimal("0.0123")
    assert len(exchange.fills(installation.clock.now().replace(year=2020))) >= 2
    rows = installation.writes(account_id)
    assert [(r.client_id, r.outcome, r.epoch) for r in rows if r.kind == "order"] == [
        (order.client_id, "accepted", 7) for order in orders
    ]
    with installation.database.read() as session:
        (wanted,) = session.execute(
            select(WantedStop).where(WantedStop.account_id == account_id)
        ).scalars()
        assert (wanted.symbol, wanted.stop_loss) == ("BTCUSDT", stops.stop_loss)
    ledger = installation.ledger(account_id)
    orders_there = ledger["orders"]
    assert isinstance(orders_there, list)
    assert {row["clientOid"] for row in orders_there} == {o.client_id for o in orders}


def test_everything_a_session_reads_survives_the_wire(installation: Installation) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    since = installation.clock.now()
    exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.02")])
    installation.clock.sleep(1)
    exchange.submit(installation.stamp(), [installation.order(Side.SELL, "0.02", reduce_only=True)])
    installation.clock.sleep(1.2)
    snapshot, bills = exchange.snapshot(), exchange.bills(since)
    earned = sum(b.amount + b.fee for b in bills if b.kind is not BillKind.TRANSFER)
    assert Decimal(10_007) + earned == snapshot.equity
    (closed,) = exchange.closed_positions(since)
    assert closed.net_profit == snapshot.equity - Decimal(10_007)
    assert exchange.quotes(["ETHUSDT"])["ETHUSDT"].bid > 0
    assert exchange.instruments()["BTCUSDT"].market is MarketType.FUTURES


def test_settings_are_applied_while_flat_and_refused_while_held(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    found = exchange.apply_symbol_settings(
        installation.stamp(), "BTCUSDT", Decimal(3), MarginMode.CROSSED
    )
    assert exchange.symbol_settings(["BTCUSDT"])["BTCUSDT"] == found
    assert found.leverage == 3
    exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.02")])
    installation.clock.sleep(1)
    with pytest.raises(Conflict, match="flat"):
        exchange.apply_symbol_settings(
            installation.stamp(), "BTCUSDT", Decimal(4), MarginMode.CROSSED
        )


def test_settings_of_many_symbols_are_read_across_the_rate_limit(
    installation: Installation,
) -> None:
    exchange = installation.exchange(installation.open_account())
    symbols = sorted(exchange.instruments())
    assert len(symbols) > 10
    assert set(exchange.symbol_settings(symbols)) == set(symbols)


def test_a_rate_limit_is_waited_for_in_world_time(installation: Installation) -> None:
    exchange = installation.exchange(installation.open_account())
    before = installation.clock.now()
    for _ in range(4):
        batch = [
            installation.order(Side.BUY, "50", symbol=symbol)
            for symbol in ("XRPUSDT", "DOGEUSDT", "ADAUSDT", "SUIUSDT", "LINKUSDT")
        ]
        results = exchange.submit(installation.stamp(), batch)
        assert [r.outcome for r in results] == [Outcome.ACCEPTED] * 5, results
    assert 1 <= (installation.clock.now() - before).total_seconds() < 5


def test_a_rate_limit_that_outlasts_the_deadline_is_told(installation: Installation) -> None:
    exchange = installation.exchange(installation.open_account())
    with pytest.raises((RateLimited, TooLate)):
        for _ in range(4):
            exchange.submit(
                installation.stamp(seconds=0.01),
                [
                    installation.order(Side.BUY, "20", symbol=s)
                    for s in ("XRPUSDT", "DOGEUSDT", "ADAUSDT", "SUIUSDT", "LINKUSDT")
                ],
            )


# --- who may ----------


def test_S10_a_token_opens_its_own_account_and_nothing_else(installation: Installation) -> None:
    mine, other = installation.open_account(), installation.open_account()
    key = installation.settings.secret("token_key")
    for token, error in (
        (installation.token(mine), Forbidden),
        (mint_grant(service_grant("market"), key), Forbidden),
        (mint_grant(session_grant(other, SESSION, OWNER), "x" * 43), Unauthenticated),
        ("", Unauthenticated),
    ):
        exchange = GatewayExchange(installation.url, other, token, installation.clock)
        for call in (
            exchange.snapshot,
            exchange.instruments,
            lambda e=exchange: e.order("BTCUSDT", "af-1"),
            lambda e=exchange: e.submit(
                installation.stamp(), [installation.order(Side.BUY, "0.01")]
            ),
            lambda e=exchange: e.set_stops(installation.stamp(), "BTCUSDT", StopPrices()),
            lambda e=exchange: e.cancel(installation.stamp(), "BTCUSDT", "af-1"),
        ):
            with pytest.raises(error):
                call()
    assert installation.writes(other) == []


def test_a_session_cannot_sign_for_another_session(installation: Installation) -> None:
    exchange = installation.exchange(installation.open_account())
    stamp = replace(installation.stamp(), session_id="2611211130-zzzz")
    with pytest.raises(Forbidden):
        exchange.submit(stamp, [installation.order(Side.BUY, "0.01")])


def test_account_doors_need_a_service_grant(installation: Installation) -> None:
    account_id = installation.open_account()
    for path, body in (
        ("/gateway/paper-accounts", {"owner_id": OWNER, "label": "x", "market": "futures"}),
        (f"/gateway/paper-accounts/{account_id}/deposits", {"amount": "1"}),
        ("/gateway/accounts", {}),
    ):
        answer = urllib3.request(
            "POST",
            installation.url + path,
            json=body,
            headers={"Authorization": f"Bearer {installation.token(account_id)}"},
        )
        assert answer.status == 403, path


@pytest.mark.parametrize(
    "change",
    [
        {"orders": [{"size": 0.01}]},
        {"orders": "x"},
        {"orders": []},
        {"orders": [None]},
        {"extra": 1},
        {"stamp": {}},
        {"stamp": None},
    ],
)
def test_S42_a_malformed_batch_is_refused_by_name(
    installation: Installation, change: dict[str, object]
) -> None:
    account_id = installation.open_account()
    stamp = {"session_id": SESSION, "epoch": 7, "not_after": "2099-01-01T00:00:00Z"}
    order = {
        "client_id": "af-1",
        "symbol": "BTCUSDT",
        "side": "buy",
        "size": "0.01",
        "reduce_only": False,
    }
    body: dict[str, object] = {"stamp": stamp, "orders": [order]}
    for name, value in change.items():
        if name == "orders" and isinstance(value, list) and value and isinstance(value[0], dict):
            body["orders"] = [{**order, **value[0]}]
        else:
            body[name] = value
    answer = urllib3.request(
        "POST",
        f"{installation.url}/gateway/accounts/{account_id}/orders",
        json=body,
        headers={"Authorization": f"Bearer {installation.token(account_id)}"},
    )
    assert answer.status == 422
    assert answer.json()["code"] == "invalid-input"
    assert installation.writes(account_id) == []


def test_S33_no_answer_and_no_plain_row_ever_holds_a_secret(installation: Installation) -> None:
    account_id = installation.open_account()
    keys = installation.keys(account_id)
    with installation.database.read() as session:
        account = session.execute(
            select(Account).where(Account.account_id == account_id)
        ).scalar_one()
        sealed = session.execute(
            select(AccountCredential).where(AccountCredential.account_id == account_id)
        ).scalar_one()
        told = repr({c.name: getattr(account, c.name) for c in Account.__table__.columns})
        for secret in (keys.api_key, keys.api_secret, keys.passphrase):
            assert secret not in told
            assert secret.encode() not in sealed.ciphertext


# --- writers ----------


def test_promise_4_only_the_epoch_of_the_account_writes(installation: Installation) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    exchange.submit(installation.stamp(7), [installation.order(Side.BUY, "0.01")])
    with installation.database.transaction() as session:
        session.execute(update(Account).where(Account.account_id == account_id).values(epoch=8))
    with pytest.raises(StaleWriter):
        exchange.submit(installation.stamp(7), [installation.order(Side.BUY, "0.01")])
    (result,) = exchange.submit(installation.stamp(8), [installation.order(Side.BUY, "0.01")])
    assert result.outcome is Outcome.ACCEPTED


def test_two_gateways_never_both_write(installation: Installation) -> None:
    account_id = installation.open_account()
    first_url = installation.url
    order = installation.order(Side.BUY, "0.01")
    installation.exchange(account_id).submit(installation.stamp(), [order])
    second_url = installation.start_gateway()
    second = installation.exchange(account_id, second_url)
    with pytest.raises(Unavailable, match="another gateway"):
        second.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    installation.gateways[0].stop()
    (result,) = second.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    assert result.outcome is Outcome.ACCEPTED
    fenced = installation.exchange(account_id, first_url)
    with pytest.raises(Unavailable):
        fenced.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])


def test_a_client_id_seen_before_a_restart_is_answered_by_the_exchange(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    order = installation.order(Side.BUY, "0.01")
    (first,) = installation.exchange(account_id).submit(installation.stamp(), [order])
    installation.gateways[0].stop()
    installation.clock.sleep(2)
    second = installation.exchange(account_id, installation.start_gateway())
    (again,) = second.submit(installation.stamp(), [order])
    assert (again.outcome, again.order_id) == (Outcome.ACCEPTED, first.order_id)
    orders = installation.ledger(account_id)["orders"]
    assert isinstance(orders, list)
    assert len(orders) == 1


# --- faults of the exchange ----------


@pytest.mark.parametrize(
    "fault",
    [
        {"answer": "drop"},
        {"answer": "truncate"},
        {"answer": "status", "status": 502},
        {"answer": "body", "body": "<html>"},
        {"answer": "code", "code": "40725"},
    ],
)
def test_A1_A4_A5_an_answer_lost_after_acceptance_is_found_again(
    installation: Installation, fault: dict[str, object]
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    stops = StopPrices(installation.price(exchange, "0.9"))
    installation.simulator.control(
        "POST", "faults", {"operation": "place-order", "moment": "after", **fault}
    )
    order = installation.order(Side.BUY, "0.01", stops=stops)
    (result,) = exchange.submit(installation.stamp(), [order])
    assert result.outcome is Outcome.ACCEPTED
    installation.clock.sleep(1)
    (position,) = exchange.snapshot().positions
    assert (position.size, position.stops) == (Decimal("0.01"), stops)
    rules = installation.simulator.control("GET", "faults")["rules"]
    assert isinstance(rules, list)
    assert [rule["fired"] for rule in rules] == [1]


def test_A3_an_order_that_never_arrived_stays_unknown_and_is_not_sent_again(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    installation.simulator.control(
        "POST", "faults", {"operation": "place-order", "moment": "before", "answer": "drop"}
    )
    order = installation.order(Side.BUY, "0.01")
    (result,) = exchange.submit(installation.stamp(), [order])
    assert result.outcome is Outcome.UNKNOWN
    (again,) = exchange.submit(installation.stamp(), [order])
    assert again.outcome is Outcome.UNKNOWN
    with pytest.raises(NotFound):
        exchange.order("BTCUSDT", order.client_id)
    assert installation.ledger(account_id)["orders"] == []
    stamp = installation.stamp()
    missing = MissingOrder(order.client_id, "BTCUSDT", False, stamp.not_after)
    found = exchange.rule_out(stamp, missing)
    assert found.passage is Passage.LEFT
    assert found.arrives_by is not None


# --- protection ----------


def test_promise_2_a_removed_stop_is_back_within_seconds(installation: Installation) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    stops = StopPrices(installation.price(exchange, "0.9"), installation.price(exchange, "1.1"))
    order = installation.order(Side.BUY, "0.01", stops=stops)
    exchange.submit(installation.stamp(), [order])
    installation.clock.sleep(2)
    person = installation.by_hand(account_id)
    for stop in person.placed_stops():
        person.remove_stop(stop)
    assert exchange.snapshot().positions[0].stops.empty
    person.close()
    installation.clock.sleep(7)
    assert exchange.snapshot().positions[0].stops == stops


def test_stops_follow_the_session_and_vanish_with_the_position(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    installation.clock.sleep(1)
    stops = StopPrices(installation.price(exchange, "0.8"))
    assert exchange.set_stops(installation.stamp(), "BTCUSDT", stops) == stops
    exchange.submit(installation.stamp(), [installation.order(Side.SELL, "0.01", reduce_only=True)])
    installation.clock.sleep(130)
    assert installation.ledger(account_id)["plans"] == []
    with installation.database.read() as session:
        left = session.execute(select(WantedStop).where(WantedStop.account_id == account_id))
        assert left.all() == []
    with pytest.raises(NotFound):
        exchange.set_stops(installation.stamp(), "BTCUSDT", stops)


def test_an_idle_gateway_does_not_hold_the_world(installation: Installation) -> None:
    installation.open_account()
    before = installation.clock.now()
    installation.clock.sleep(180)
    assert (installation.clock.now() - before).total_seconds() == 180


# --- Postgres ----------


def test_E3_without_postgres_only_reductions_leave_and_all_is_well_afterwards(
    installation: Installation, postgres_server: EmbeddedPostgres
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    order = installation.order(Side.BUY, "0.03")
    exchange.submit(installation.stamp(), [order])
    installation.clock.sleep(1)
    postgres_server.stop()
    try:
        with pytest.raises(Unavailable):
            exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
        reduction = installation.order(Side.SELL, "0.01", reduce_only=True)
        (result,) = exchange.submit(installation.stamp(), [reduction])
        assert result.outcome is Outcome.ACCEPTED
        assert exchange.snapshot().equity > 0
    finally:
        postgres_server.start(ends_with_parent=True)
    installation.clock.sleep(3)
    (result,) = exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    assert result.outcome is Outcome.ACCEPTED
    recorded = {row.client_id for row in installation.writes(account_id)}
    assert {order.client_id, reduction.client_id} <= recorded


def test_I22_after_the_kill_switch_is_acknowledged_no_opening_order_leaves(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    threads_count, turns = 4, 12
    first = installation.exchange(account_id)
    first.submit(installation.stamp(), [installation.order(Side.BUY, "0.001")])
    orders = [
        [installation.order(Side.BUY, "0.001") for _ in range(turns)] for _ in range(threads_count)
    ]
    stamp = installation.stamp(seconds=600)
    started = threading.Barrier(threads_count + 1)
    codes: list[str | None] = []

    def trade(mine: list[OrderRequest]) -> None:
        exchange = installation.exchange(account_id)
        started.wait()
        for order in mine:
            with contextlib.suppress(Retryable):
                codes.extend(r.code for r in exchange.submit(stamp, [order]))
        exchange.close()

    threads = [threading.Thread(target=trade, args=(mine,)) for mine in orders]
    for thread in threads:
        thread.start()
    started.wait()
    AccountRepository(installation.database).change(account_id, limits={"kill_switch": True})
    at_acknowledgement = _count_of_orders(installation, account_id)
    for thread in threads:
        thread.join(60)
    late = _count_of_orders(installation, account_id) - at_acknowledgement
    assert late <= threads_count, "only what was on the wire already"
    assert "kill-switch" in codes
    (result,) = first.submit(stamp, [installation.order(Side.BUY, "0.001")])
    assert result.code == "kill-switch"
    first.close()


def _count_of_orders(installation: Installation, account_id: str) -> int:
    orders = installation.ledger(account_id)["orders"]
    assert isinstance(orders, list)
    return len(orders)


def test_health_counts_and_only_services_read_names(installation: Installation) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    health = urllib3.request("GET", f"{installation.url}/gateway/health").json()
    assert (health["status"], health["alive"], health["spooled"]) == ("ok", True, 0)
    assert health["owned"] >= 1
    state = f"{installation.url}/gateway/state"
    assert urllib3.request("GET", state).status == 401
    mine = {"Authorization": f"Bearer {installation.token(account_id)}"}
    assert urllib3.request("GET", state, headers=mine).status == 403
    token = mint_grant(service_grant("platform"), installation.settings.secret("token_key"))
    answer = urllib3.request("GET", state, headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["circuits"] == []


# --- the client, against servers that die ----------


@contextmanager
def dying_server() -> Iterator[tuple[str, list[bytes]]]:
    """Accepts, reads the request, and hangs up without a byte; what it read is kept."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                seen.append(connection.recv(65_536))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_write_whose_answer_is_lost_is_unknown_and_sent_once(
    installation: Installation,
) -> None:
    with dying_server() as (url, seen):
        exchange = installation.exchange("acc", url)
        for write in (
            lambda: exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")]),
            lambda: exchange.cancel(installation.stamp(), "BTCUSDT", "af-1"),
            lambda: exchange.set_stops(installation.stamp(), "BTCUSDT", StopPrices()),
        ):
            with pytest.raises(OutcomeUnknown):
                write()
        assert len(seen) == 3


def test_a_read_is_repeated_and_then_given_up(installation: Installation) -> None:
    with dying_server() as (url, seen):
        exchange = installation.exchange("acc", url, connect_patience_s=0.5)
        with pytest.raises(Unavailable):
            exchange.snapshot()
        assert len(seen) >= 3


def test_a_refused_connection_means_that_nothing_was_sent(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    exchange = installation.exchange("acc", f"http://127.0.0.1:{port}", connect_patience_s=0.3)
    before = installation.clock.now()
    with pytest.raises(Unavailable, match="nothing was sent"):
        exchange.submit(installation.stamp(), [installation.order(Side.BUY, "0.01")])
    assert installation.clock.now() == before  # it waited in real time


def test_a_batch_of_none_or_six_does_not_leave_the_client(installation: Installation) -> None:
    exchange = installation.exchange("acc")
    for size in (0, 6):
        with pytest.raises(InvalidInput):
            exchange.submit(
                installation.stamp(),
                [installation.order(Side.BUY, "0.01") for _ in range(size)],
            )
