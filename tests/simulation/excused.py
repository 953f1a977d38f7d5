"""Ids of the catalogue that a simulated day cannot meet: why, and which tests meet them instead.

A test (`test_coverage.py`) holds this table against the catalogue: each id of groups A to E and O
is drawn by some day or stands here, and every test that is named here exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why a day cannot meet it; `tests` are "file::test". None: nothing tests it, `why` says so."""

    why: str
    tests: tuple[str, ...] = ()


def _in(folder: str, *tests: str) -> tuple[str, ...]:
    return tuple(f"tests/{folder}/{test}" for test in tests)


EXCUSED: Final[Mapping[str, Excuse]] = {
    "A7": Excuse(
        "a cycle has one order of a symbol at a time, and batches are of one symbol: none leaves",
        _in(
            "integration/gateway",
            "test_exchange_faults.py::test_A7_each_leg_of_a_batch_has_its_own_outcome",
            "test_exchange_faults.py::test_A7_a_leg_in_both_lists_halts_the_account",
        ),
    ),
    "A17": Excuse(
        "limits of the market are always on in the engine; A19 changes them in mid-day",
        _in("contract/simulator", "test_wire_orders.py::test_A17_a_broken_rule_has_its_code")
        + _in(
            "contract/exchange",
            "test_venue_orders.py::test_A17_a_size_off_the_lot_is_refused_and_never_rounded",
        ),
    ),
    "A25": Excuse(
        "there is no TLS inside one process",
        _in(
            "integration",
            "gateway/test_certificates.py::"
            "test_A25_an_order_to_an_exchange_that_cannot_prove_who_it_is_was_certainly_not_sent",
        ),
    ),
    "C6": Excuse(
        "a day is one span of UTC instants",
        _in("unit", "test_boundaries.py::test_C6_every_slot_of_every_odd_day_comes_once"),
    ),
    "C10": Excuse(
        "names are checked before anything else is done with them",
        _in(
            "unit",
            "trading/rebalance/test_weights.py::"
            "test_G2_C10_what_is_no_set_of_weights_is_refused_and_named",
            "market/test_service.py::test_C10_unknown_symbols_are_named_all_of_them",
        ),
    ),
    "C11": Excuse("prices are read by request; there is no stream that could fall silent"),
    "D5": Excuse(
        "needs the real router",
        _in(
            "e2e",
            "test_restart.py::test_D5_sessions_go_on_when_the_installation_is_started_again",
        ),
    ),
    "D7": Excuse(
        "a dead process's lock needs a real one",
        _in("integration/trading", "test_order_info_outside.py::test_D7_the_lock_of_a_dead_process")
        + _in("unit/launch", "test_processes.py::test_D7_a_reused_pid_is_somebody_else"),
    ),
    "D8": Excuse(
        "a race of real processes",
        _in(
            "integration/trading",
            "test_order_info_outside.py::test_D8_of_two_writers_the_newer_epoch_wins_for_good",
        ),
    ),
    "D11": Excuse(
        "signals and grandchildren need real processes",
        _in("security", "test_sandbox.py::test_G4_no_process_can_be_started")
        + _in(
            "integration/trading",
            "test_runner_host_ends.py::test_a_host_that_ends_takes_its_children_with_it",
        ),
    ),
    "D12": Excuse(
        "fork needs the real kernel; what a refused fork looks like from here is met",
        _in(
            "integration/trading",
            "test_children.py::test_one_that_dies_before_it_is_ready_is_unavailable",
        ),
    ),
    "D13": Excuse(
        "descriptors over many real starts",
        _in(
            "integration/trading",
            "test_children.py::test_I20_starting_again_and_again_leaves_no_descriptor",
        ),
    ),
    "D14": Excuse(
        "the pipes of a real child",
        _in(
            "integration/trading",
            "test_runner_host.py::test_what_it_prints_is_kept_up_to_a_length",
        ),
    ),
    "D15": Excuse(
        "the runner's real socket",
        _in("integration/trading", "test_runner_host.py::test_S26_a_forged_message_is_no_answer")
        + _in("unit/launch", "test_host_protocol.py::test_nonsense_is_no_request"),
    ),
    "D18": Excuse(
        "one process has one build",
        _in("unit/launch", "test_host_protocol.py::test_each_build_has_sockets_of_its_own"),
    ),
    "D19": Excuse(
        "a session's settings are in its row before it begins",
        _in(
            "integration/db",
            "test_sessions_repository.py::test_a_spec_that_was_damaged_is_no_spec",
        ),
    ),
    "E10": Excuse(
        "migrations need the real Postgres",
        _in(
            "integration/db",
            "test_migrate.py::test_E10_code_older_than_the_schema_refuses_and_leaves_it_alone",
        ),
    ),
    "E11": Excuse(
        "arithmetic of metrics",
        _in(
            "unit/monitoring",
            "test_metrics.py::test_E11_nothing_to_divide_by_is_null_with_a_flag",
        ),
    ),
    "E12": Excuse(
        "a day is too short for the spool's bound",
        _in(
            "unit/monitoring",
            "test_spool.py::test_E12_over_its_bound_the_spool_keeps_portfolio_rows_and_gaps_only",
        ),
    ),
    "O4": Excuse(
        "HTTP clients are the platform API's; a command that is taken is a row",
        _in(
            "integration",
            "api/test_command.py::"
            "test_O4_a_client_that_hangs_up_in_mid_request_has_its_session_all_the_same",
        ),
    ),
    "O6": Excuse(
        "the platform API's rows",
        _in(
            "integration/api",
            "test_command.py::test_O6_a_router_that_died_between_is_continued_with_the_same_session",
        ),
    ),
    "O7": Excuse(
        "roles are the platform API's",
        _in(
            "security",
            "test_api_policies.py::test_S14_a_changed_role_holds_from_the_next_request",
        ),
    ),
    "O9": Excuse(
        "a running session's spec is pinned: there is no command that changes it",
        _in(
            "unit/files",
            "test_strategy_store.py::test_a_pinned_built_in_outlives_a_release_that_changes_it",
        ),
    ),
    "O10": Excuse(
        "idempotency keys are the platform API's",
        _in(
            "integration/api",
            "test_previews.py::test_an_idempotency_key_gets_the_same_answer_and_no_other_body",
        ),
    ),
    "O11": Excuse(
        "two hundred real sessions; the admission is met",
        _in("integration/api", "test_command.py::test_sessions_max_is_an_admission_limit"),
    ),
}
