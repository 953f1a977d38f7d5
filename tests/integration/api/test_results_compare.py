"""Curves side by side: of exactly the asked range, by the functions that measure sessions."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from module.model.results import TradeSums
from module.settings import Settings
from tests.fakes.measured_curves import MINUTE, store_curve
from tests.fakes.measured_run import START, Run, add_session, measured_run, read_csv
from tests.fakes.platform import FakePlatform, fake_platform

OWN_METRICS = (
    *("cumulative_return", "max_drawdown", "sharpe_1min", "volatility_1min", "sharpe_1day"),
    *("calmar_1day", "win_rate", "profit_factor", "turnover"),
)


@pytest.fixture(scope="module")
def shared(postgres: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    made = fake_platform(postgres, tmp_path_factory.mktemp("data"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(shared: FakePlatform) -> Run:
    return measured_run(shared, "runner")


def compared(run: Run, query: str) -> Any:
    answer = run.client.get(f"/results/compare?session={run.watched.session_id}&{query}")
    assert answer.status == 200, answer.body
    return answer.json()


def test_the_whole_session_has_the_sessions_own_indicators(run: Run) -> None:
    found = compared(run, "end=2025-03-05T00:00:00Z&resolution=1m")
    (curve,) = found["curves"]
    metrics = curve["metrics"]
    own = run.state.read(
        TradeSums(2, 1, Decimal("15.0305"), Decimal("-3.25"), Decimal(11_285), Decimal("1.11"),
                  Decimal("11283.15"))
    )  # fmt: skip
    for name in OWN_METRICS:
        assert metrics[name] == getattr(own, name), name
    assert (metrics["start_pv"], metrics["end_pv"]) == ("10000", "10601")
    assert (metrics["profit"], metrics["net_transfers"]) == ("101", "500")
    assert (metrics["fees"], metrics["minutes"], metrics["gaps"]) == ("-7", 7, 3)
    assert found["rows"][0] == {"elapsed_s": 0, "index": [100.0]}
    assert found["rows"][-1]["elapsed_s"] == 420
    assert found["rows"][-1]["index"][0] == pytest.approx(
        100 * 1.0010 * 1.00071234567890 / 1.00100 * 9993.5 / 10007.123456789012
        * 9995 / 9993.5 * 10601 / 10495, rel=1e-9
    )  # fmt: skip


def test_a_year_has_as_many_days_as_the_setting_says(postgres: Settings, run: Run) -> None:
    metrics = compared(run, "end=2025-03-05T00:00:00Z")["curves"][0]["metrics"]
    session = run.watched
    other = fake_platform(postgres, Path(postgres.data_dir) / "other-years", days_per_year=251)
    _, client = other.person("runner")
    query = f"session={session.session_id}&end=2025-03-05T00:00:00Z"
    found = client.get(f"/results/compare?{query}").json()["curves"][0]["metrics"]
    other.close()
    own = run.state.read(TradeSums(), 251)
    for name in ("sharpe_1min", "volatility_1min", "sharpe_1day", "calmar_1day", "calmar_1min"):
        assert found[name] == getattr(own, name) != metrics[name], name


def test_periods_of_one_session_chain_to_the_whole(run: Run) -> None:
    periods = (
        "period=2025-03-03T23:57:00Z/2025-03-04T00:00:00Z"
        "&period=2025-03-04T00:00:00Z/2025-03-04T00:04:00Z"
    )
    first, second = compared(run, periods)["curves"]
    assert first["key"].endswith("/1")
    whole = compared(run, "end=2025-03-05T00:00:00Z")["curves"][0]["metrics"]
    parts = [curve["metrics"] for curve in (first, second)]
    assert (1 + parts[0]["cumulative_return"]) * (1 + parts[1]["cumulative_return"]) == (
        pytest.approx(1 + whole["cumulative_return"], rel=1e-12)
    )
    assert [part["minutes"] for part in parts] == [3, 4]
    assert [part["trades"] for part in parts] == [0, 2]
    assert (parts[0]["start_pv"], parts[1]["start_pv"]) == ("10000", "9993.5")
    assert sum(Decimal(part["fees"]) for part in parts) == Decimal(whole["fees"])


def test_days_measure_what_minutes_do_but_for_what_needs_minutes(run: Run) -> None:
    by_minutes = compared(run, "end=2025-03-05T00:00:00Z")["curves"][0]["metrics"]
    found = compared(run, "end=2025-03-05T00:00:00Z&basis=1day")
    by_days = found["curves"][0]["metrics"]
    assert found["resolution"] == "1d"
    for name in ("cumulative_return", "sharpe_1day", "volatility_1day", "max_drawdown_1day"):
        assert by_days[name] == pytest.approx(by_minutes[name], rel=1e-9), name
    assert by_days["sharpe_1min"] is by_days["max_drawdown"] is by_days["minutes"] is None
    assert (by_days["profit"], by_days["fees"]) == (by_minutes["profit"], by_minutes["fees"])
    refused = run.client.get(
        f"/results/compare?session={run.watched.session_id}&basis=1day&resolution=1h"
    )
    assert refused.status == 422


def test_several_sessions_are_aligned_by_start_or_by_the_calendar(
    shared: FakePlatform, run: Run
) -> None:
    later = add_session(shared, "runner", started_at=START + 2 * MINUTE)
    at = later.started_at
    store_curve(shared.doors.results, later, [(at + MINUTE, Decimal(10_100), Decimal(0))])
    both = f"session={later.session_id}&resolution=1m&end=2025-03-05T00:00:00Z"
    by_start = compared(run, both)["rows"]
    assert by_start[1]["elapsed_s"] == 60
    assert by_start[1]["index"] == pytest.approx([100.1, 101.0])
    by_calendar = compared(run, f"{both}&align=calendar")["rows"]
    assert [row["at"][11:16] for row in by_calendar[:4]] == ["23:57", "23:58", "23:59", "00:00"]
    assert by_calendar[1]["index"][1] is None
    assert by_calendar[2]["index"][1] == 100.0
    assert by_calendar[3]["index"][1] == pytest.approx(101.0)
    query = f"/results/compare?session={run.watched.session_id}&{both}&format=csv"
    table = read_csv(run.client.get(query))
    assert [row["end_pv"] for row in table] == ["10601", "10100"]
    index = read_csv(run.client.get(f"{query}&table=index"))
    assert index[1][later.session_id] == "101.0"


def test_what_cannot_be_compared_is_refused(run: Run) -> None:
    for query in (
        "",
        f"session={run.watched.session_id}&period=2025-03-04T00:00:00Z",
        f"session={run.watched.session_id}&period=2025-03-04T00:00:00Z/2025-03-03T00:00:00Z",
        f"session={run.watched.session_id}&resolution=1m",
        f"session={run.watched.session_id}&basis=1min",
        "session=no-session",
        "&".join(["session=2611211010-zzzz"] * 13),
    ):
        assert run.client.get(f"/results/compare?{query}").status == 422, query
