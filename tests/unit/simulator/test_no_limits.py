"""Load tests may lift the request limits; nobody else does."""

from __future__ import annotations

from module.simulator.options import build_parser, settings_from
from module.simulator.wire.bitget_app import ADDRESS_LIMIT_PER_MINUTE, NoLimits, RequestLimits
from module.simulator.wire.bitget_table import ENDPOINTS

PLACE = ENDPOINTS["POST /api/v2/mix/order/place-order"]


def test_without_limits_every_request_is_the_first_of_its_second() -> None:
    free, counted = NoLimits(), RequestLimits(ADDRESS_LIMIT_PER_MINUTE)
    asked = 10 * PLACE.limit_per_s
    assert {free.admit(PLACE, "ann", 7) for _ in range(asked)} == {PLACE.limit_per_s - 1}
    assert [counted.admit(PLACE, "ann", 7) for _ in range(asked)].count(None) == (
        asked - PLACE.limit_per_s
    )
    assert all(free.admit_address("10.0.0.1", 7) for _ in range(ADDRESS_LIMIT_PER_MINUTE + 1))


def test_limits_are_kept_unless_they_are_lifted_by_name() -> None:
    parser = build_parser()
    assert settings_from(parser.parse_args([])).unlimited is False
    assert settings_from(parser.parse_args(["--unlimited"])).unlimited is True
