"""Strategies as files: immutable versions, names that are never paths, text that is only parsed."""

from __future__ import annotations

import gc
import string
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.files.strategy_store import (
    CONFIG_BYTES_MAX,
    SOURCE_BYTES_MAX,
    StrategyStore,
    check_name,
    check_source,
)
from module.model.errors import InvalidInput, InvariantViolated, NotFound

SOURCE = b"def strategy(context, config_dict):\n    return {'BTCUSDT': {'weight': 0.37}}\n"
OWNER = "3f1c2b9a-1111-4222-8333-444455556666"
OTHER = "9d1c2b9a-1111-4222-8333-444455556666"


@pytest.fixture
def store(tmp_path: Path) -> StrategyStore:
    return StrategyStore(tmp_path / "data")


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_saved_version_is_read_back_and_never_changes(store: StrategyStore) -> None:
    first = store.save(OWNER, "alpha", SOURCE, {"top": 3})
    second = store.save(OWNER, "alpha", SOURCE + b"# more\n", {"top": 3})

    assert store.latest(OWNER, "alpha") == second
    assert store.read_version(OWNER, "alpha", first.digest) == first
    assert first.digest != second.digest
    assert first.config == {"top": 3}


def test_the_same_content_is_the_same_version_and_another_config_another(
    store: StrategyStore, tmp_path: Path
) -> None:
    first = store.save(OWNER, "alpha", SOURCE, {"top": 3})
    before = files_below(tmp_path)
    assert store.save(OWNER, "alpha", SOURCE, {"top": 3}).digest == first.digest
    assert files_below(tmp_path) == before
    assert store.save(OWNER, "alpha", SOURCE, {"top": 4}).digest != first.digest


def test_going_back_to_an_older_text_makes_it_the_newest(store: StrategyStore) -> None:
    first = store.save(OWNER, "alpha", SOURCE, {})
    store.save(OWNER, "alpha", SOURCE + b"# more\n", {})
    store.save(OWNER, "alpha", SOURCE, {})
    assert store.latest(OWNER, "alpha").digest == first.digest


def test_nobody_sees_the_strategy_of_another(store: StrategyStore) -> None:
    saved = store.save(OWNER, "alpha", SOURCE, {})
    with pytest.raises(NotFound):
        store.latest(OTHER, "alpha")
    with pytest.raises(NotFound):
        store.read_version(OTHER, "alpha", saved.digest)


def test_built_in_strategies_are_everybodys_and_ones_own_name_comes_first(
    store: StrategyStore,
) -> None:
    names = {item.name: item for item in store.list_for(OWNER)}
    assert {"momentum", "equal_weight"} <= set(names)
    assert names["momentum"].built_in
    built_in = store.latest(OWNER, "momentum")
    own = store.save(OWNER, "momentum", SOURCE, {})
    assert store.latest(OWNER, "momentum").digest == own.digest
    assert store.latest(OTHER, "momentum").digest == built_in.digest
    assert [i.name for i in store.list_for(OWNER)].count("momentum") == 1


def test_a_pinned_built_in_outlives_a_release_that_changes_it(tmp_path: Path) -> None:
    built_ins = tmp_path / "built-ins"
    built_ins.mkdir()
    (built_ins / "momentum.py").write_bytes(SOURCE)
    store = StrategyStore(tmp_path / "data", built_ins)
    pinned = store.latest(OWNER, "momentum")
    store.pin(pinned)

    (built_ins / "momentum.py").write_bytes(SOURCE + b"# next release\n")

    assert store.read_version(OWNER, "momentum", pinned.digest) == pinned
    assert store.latest(OWNER, "momentum").digest != pinned.digest


def test_a_version_that_was_altered_on_disk_is_refused(
    store: StrategyStore, tmp_path: Path
) -> None:
    saved = store.save(OWNER, "alpha", SOURCE, {})
    path = tmp_path / "data" / "strategies" / OWNER / "alpha" / saved.digest / "strategy.py"
    path.write_bytes(SOURCE + b"import os\n")
    with pytest.raises(InvariantViolated, match="altered"):
        store.latest(OWNER, "alpha")


def test_S3_a_link_in_the_store_is_not_followed(store: StrategyStore, tmp_path: Path) -> None:
    saved = store.save(OWNER, "alpha", SOURCE, {})
    path = tmp_path / "data" / "strategies" / OWNER / "alpha" / saved.digest / "strategy.py"
    elsewhere = tmp_path / "elsewhere.py"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(InvalidInput, match="symbolic link"):
        store.latest(OWNER, "alpha")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../alpha",
        "..%2falpha",
        "%252e%252e",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "alpha\0",
        "alpha.",
        "alpha\n",
        "CON",
        "latest",
        "alpha\u2215beta",
        "\uff11lpha",
        "a" * 300,
        "-rf",
        "_private",
        "$(id)",
        "a;rm",
    ],
)
def test_S1_S6_a_name_that_is_no_label_is_refused(
    store: StrategyStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput):
        store.save(OWNER, name, SOURCE, {})
    with pytest.raises(InvalidInput):
        store.latest(OWNER, name)
    assert files_below(tmp_path) == set()


@given(st.text(alphabet=string.printable + "\0\u2215\u202e\uff0e\uff11", max_size=60))
@settings(max_examples=400, deadline=None)
def test_S1_whatever_passes_as_a_name_is_one_plain_path_component(name: str) -> None:
    try:
        check_name(name)
    except InvalidInput:
        return
    assert Path(name).name == name
    assert name not in (".", "..", "")
    assert name.isascii()
    assert set(name) <= set(string.ascii_letters + string.digits + "_-")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"def strategy(context, config_dict)\n    return {}\n", "line 1"),
        (b"x = 1\n", "no function strategy"),
        (b"def strategy(context):\n    return {}\n", "line 1: strategy must take two"),
        (b"def strategy(a, b, c):\n    return {}\n", "must take two"),
        (b"def strategy(a, b, *, c):\n    return {}\n", "must take two"),
        (b"async def strategy(a, b):\n    return {}\n", "not async"),
        (b"class A:\n    def strategy(self, a, b):\n        return {}\n", "no function strategy"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\xef\xbb\xbf" + SOURCE, r"line 1 .* U\+FEFF"),
        (SOURCE + "# \u202e evil\n".encode(), r"line 3 .* U\+202E"),
        (SOURCE + b"# \x00\n", r"U\+0000"),
        (SOURCE + b"# \x1b[31m\n", r"U\+001B"),
        (b"a = " + b"(" * 5000 + b")" * 5000, "does not parse"),
        (SOURCE + b"#" * SOURCE_BYTES_MAX, "at most"),
    ],
)
def test_S5_what_is_wrong_with_a_source_is_said_with_its_line(source: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_source(source)


@pytest.mark.parametrize(
    "signature", ["(context, config_dict)", "(a, b, c=1)", "(*things)", "(a, *rest)", "(a, b, /)"]
)
def test_whatever_can_be_called_with_two_arguments_is_taken(signature: str) -> None:
    text = f"def strategy{signature}:\r\n\treturn {{}}\r\n"
    assert check_source(text.encode()) == text


def test_sources_are_read_by_many_threads_at_once() -> None:
    deep = b"def strategy(context, config_dict):\n    return " + b"(-" * 60 + b"1" + b")" * 60
    before = gc.get_threshold()

    def let_another_thread_run(_phase: str, _info: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(let_another_thread_run)
    gc.set_threshold(10)
    try:
        with ThreadPoolExecutor(4) as pool:
            texts = list(pool.map(check_source, [deep] * 40))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(let_another_thread_run)

    assert len(texts) == 40


def test_S7_an_upload_is_never_run(store: StrategyStore, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = f"open({str(canary)!r}, 'w')\n".encode() + SOURCE
    store.save(OWNER, "alpha", source, {})
    store.latest(OWNER, "alpha")
    assert not canary.exists()


def test_a_config_is_a_bounded_json_object(store: StrategyStore) -> None:
    with pytest.raises(InvalidInput, match="config"):
        store.save(OWNER, "alpha", SOURCE, {"x": float("nan")})
    with pytest.raises(InvalidInput, match="config"):
        store.save(OWNER, "alpha", SOURCE, {"x": "y" * CONFIG_BYTES_MAX})


def test_momentum_is_the_one_of_the_first_document() -> None:
    shared = Path(__file__).parents[3].parent / "shared" / "seeds" / "000_aifap_bt_master.md"
    if not shared.is_file():
        pytest.skip("the documents the product was conceived from are not beside this checkout")
    ours = Path(__file__).parents[3] / "trading" / "strategies" / "momentum.py"
    assert ours.read_text() in shared.read_text()
