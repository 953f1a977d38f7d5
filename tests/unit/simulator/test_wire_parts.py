"""Parts of the wire layer by themselves: journal folder, limits, words, codes."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from module.model.errors import Conflict, InvalidInput
from module.simulator.engine.engine_types import EngineRejected, RejectReason, Side
from module.simulator.journal import JournalEntry, LastTime, WorldFolder
from module.simulator.options import read_secrets
from module.simulator.wire.bitget_app import RequestLimits
from module.simulator.wire.bitget_auth import ApiKey
from module.simulator.wire.bitget_codes import WireError, wire_error
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.bitget_rows import number
from module.simulator.wire.bitget_table import ENDPOINTS

# -- journal ----------------------------------------------------------------------------------


def entry(number_: int) -> JournalEntry:
    return JournalEntry(
        1000 + number_, "POST /x", "10000001", {"size": Decimal("0.10"), "n": number_}
    )


def test_what_was_appended_is_read_again_and_numbers_keep_their_spelling(tmp_path: Path) -> None:
    folder = WorldFolder(tmp_path)
    assert not folder.holds_world
    folder.start_world({"market_id": "synthetic:1"})
    for number_ in range(3):
        folder.append(entry(number_))
    folder.close()
    again = WorldFolder(tmp_path)
    assert again.holds_world
    assert again.read_header()["market_id"] == "synthetic:1"
    found = list(again.entries())
    assert [(each.at_ms, each.params["n"]) for each in found] == [(1000, 0), (1001, 1), (1002, 2)]
    assert Params(found[0].params).text("size") == "0.10"
    again.close()


def test_a_line_that_a_kill_cut_off_is_dropped_and_the_journal_goes_on(tmp_path: Path) -> None:
    folder = WorldFolder(tmp_path)
    folder.start_world({})
    folder.append(entry(1))
    folder.close()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at":1002,"call":"POST')
    again = WorldFolder(tmp_path)
    assert [each.at_ms for each in again.entries()] == [1001]
    again.append(entry(2))
    assert [each.at_ms for each in again.entries()] == [1001, 1002]
    again.close()


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = WorldFolder(tmp_path)
    folder.start_world({})
    folder.append(entry(1))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b"oops\n")
    with pytest.raises(InvalidInput, match=r"journal\.jsonl line 3"):
        list(folder.entries())
    with pytest.raises(Conflict, match="another simulator"):
        WorldFolder(tmp_path)
    folder.close()


def test_a_folder_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"format": 99}\n')
    folder = WorldFolder(tmp_path)
    with pytest.raises(InvalidInput, match="format 99"):
        folder.read_header()
    folder.close()


def test_time_and_keys_survive_and_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    folder = WorldFolder(tmp_path)
    assert folder.last_time() is None
    folder.save_time(77, ("a", "b"))
    assert folder.last_time() == LastTime(77, ("a", "b"))
    key = ApiKey("k", "very-secret", "passphrase", "10000001")
    folder.save_keys({"k": key})
    assert folder.load_keys() == {"k": key}
    assert "very-secret" not in repr(key)
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    folder.close()


# -- limits, words, numbers, codes ------------------------------------------------------------


def test_an_address_that_asks_too_much_is_shut_out_for_five_minutes() -> None:
    limits = RequestLimits(3)
    assert [limits.admit_address("a", 60_000 + each) for each in range(4)] == [True] * 3 + [False]
    assert limits.admit_address("b", 60_010)
    assert not limits.admit_address("a", 60_000 + 299_000)
    assert limits.admit_address("a", 60_003 + 300_000)


def test_words_forgive_case_and_refuse_nonsense() -> None:
    words = Params({"side": "BUY", "size": "1.50", "none": "", "flag": "YES", "zero": 0, "t": True})
    assert words.needed_choice("side", Side) is Side.BUY
    assert words.positive("zero") is None
    assert words.text("none") is None
    assert words.yes("flag")
    for name, kind in (("size", Side), ("t", Side)):
        with pytest.raises(WireError, match="400172"):
            words.needed_choice(name, kind)
    for value in ("nan", "inf", "1e999", "abc", "9" * 50, [1], 1.5):
        with pytest.raises(WireError, match="400172"):
            Params({"size": value}).decimal("size")
    for value in ("-1", "1.5", "٣", "9" * 30):
        with pytest.raises(WireError, match="400172"):
            Params({"limit": value}).integer("limit", 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.500", "1.5"),
        ("1E+3", "1000"),
        ("0.00", "0"),
        ("-0.10", "-0.1"),
        ("0.12345678901234567890", "0.1234567890123457"),
    ],
)
def test_numbers_are_plain_and_short(value: str, text: str) -> None:
    assert number(Decimal(value)) == text


def test_nothing_is_an_empty_string() -> None:
    assert number(None) == ""


def test_every_refusal_of_the_engine_has_a_code_in_every_family() -> None:
    for reason in RejectReason:
        for family in {endpoint.family for endpoint in ENDPOINTS.values()}:
            error = wire_error(EngineRejected(reason, "the detail 42"), family)
            assert error.code.isdigit()
            assert "{" not in error.message


def test_the_table_names_each_path_once_and_every_write_needs_a_key() -> None:
    for name, endpoint in ENDPOINTS.items():
        assert name == f"{endpoint.method} {endpoint.path}"
        assert endpoint.writes == (endpoint.method == "POST")
        assert not endpoint.writes or endpoint.authority is not None


def test_a_secrets_file_holds_one_account_or_several() -> None:
    one = {"control_token": "t", "api_key": "k", "api_secret": "s", "passphrase": "p"}
    token, (account,) = read_secrets(json.dumps(one), {"futures_usdt": "5"})
    assert (token, account.api_key, account.futures_usdt) == ("t", "k", Decimal(5))
    assert "s'" not in repr(account)
    more = {**one, "accounts": [{**one, "api_key": "k2", "environment": "demo"}]}
    _, accounts = read_secrets(json.dumps(more), {})
    assert [each.environment for each in accounts] == ["paper", "demo"]
    for text in ("[]", "{", '{"accounts": 5}', '{"api_key": "k", "environment": "live"}'):
        with pytest.raises((InvalidInput, WireError)):
            read_secrets(text, {"api_secret": "s", "passphrase": "p"})
