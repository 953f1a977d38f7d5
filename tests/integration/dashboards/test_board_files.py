"""The boards as files: those of the code, such that Grafana takes them, and what they refer to."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.grafana.build import FOLDER, render_files
from module.db.migrate import READER_ROLE
from tests.integration.dashboards.asked import (
    DATABASES,
    METRICS_UID,
    all_questions,
    boards,
    questions_of,
)

ROOT = Path(__file__).resolve().parents[3]
PROVISIONING = ROOT / "dashboards" / "grafana" / "provisioning"
BOARDS = ("trader", "risk", "operations", "fleet", "comparison")
KINDS = {"stat", "timeseries", "table", "piechart", "bargauge", "row"}
UNITS = {"none", "short", "percentunit", "currencyUSD", "s", "ms", "reqps"}
# What each kind of panel must say, or Grafana draws something else than meant.
OPTIONS = {
    "stat": {"reduceOptions", "colorMode", "graphMode", "textMode", "orientation"},
    "timeseries": {"legend", "tooltip"},
    "table": {"showHeader", "cellHeight"},
    "piechart": {"reduceOptions", "pieType", "legend"},
    "bargauge": {"reduceOptions", "orientation", "displayMode"},
}
BUILT_IN = {"__interval", "__interval_ms", "__from", "__to", "__rate_interval"}
SERIES = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return boards()[request.param]


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


# --- files ----------------------------------------------------------------------------------------


def test_the_boards_in_the_checkout_are_those_of_the_code() -> None:
    files = render_files()
    for path, text in files.items():
        assert path.read_text() == text, f"run `python -m dashboards.grafana.build` for {path}"
    assert {path.stem for path in FOLDER.glob("*.json")} == set(BOARDS) == set(boards())


def test_boards_have_names_of_their_own_that_links_lead_to() -> None:
    uids = [board["uid"] for board in boards().values()]
    assert len(set(uids)) == len(uids)
    assert len({board["title"] for board in boards().values()}) == len(uids)
    text = json.dumps(boards())
    assert set(re.findall(r"/d/([\w-]+)", text)) <= set(uids)


# --- panels ---------------------------------------------------------------------------------------


def test_a_board_says_what_it_is_for_and_cannot_be_edited(board: dict[str, Any]) -> None:
    assert board["description"].endswith(".")
    assert board["schemaVersion"] == 39
    assert board["editable"] is False
    assert "id" not in board
    assert board["tags"] == ["aifap"]
    assert board["timezone"] == "browser"


def test_panels_have_numbers_of_their_own_and_do_not_cover_each_other(
    board: dict[str, Any],
) -> None:
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells, panel["title"]
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    rows = {y for _, y in taken}
    assert all((x, y) in taken for x in range(24) for y in rows), "there is a hole"


def test_panels_say_what_their_numbers_mean(board: dict[str, Any]) -> None:
    for panel in panels_of(board):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["title"], panel["description"]
        assert panel["type"] in KINDS
        assert panel["options"].keys() >= OPTIONS[panel["type"]], panel["title"]


def test_units_and_overrides_are_ones_that_grafana_knows(board: dict[str, Any]) -> None:
    for panel in panels_of(board):
        config = panel["fieldConfig"]
        assert config["defaults"]["unit"] in UNITS, panel["title"]
        text = " ".join(target.get("rawSql", "") for target in panel["targets"])
        for override in config["overrides"]:
            assert override["matcher"]["id"] == "byName"
            assert f'"{override["matcher"]["options"]}"' in text, panel["title"]
            for each in override["properties"]:
                if each["id"] == "unit":
                    assert each["value"] in UNITS, panel["title"]


def test_a_threshold_begins_below_everything(board: dict[str, Any]) -> None:
    for panel in panels_of(board):
        values = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert values[0] is None
        assert values[1:] == sorted(values[1:])


def test_on_top_of_the_traders_board_is_what_a_trader_looks_at_first() -> None:
    panels = sorted(
        boards()["trader"]["panels"], key=lambda one: (one["gridPos"]["y"], one["gridPos"]["x"])
    )
    assert [panel["title"] for panel in panels] == [
        "ROE",
        "Sharpe Ratio",
        "Max Drawdown",
        "Portfolio Value Over Time",
        "Position Allocation",
        "Position Sizes (USDT)",
    ]
    heights = [panels[index]["gridPos"]["h"] for index in (0, 3, 4)]
    assert heights == [4, 12, 8]  # a sixth, a half, a third


# --- datasources and variables --------------------------------------------------------------------


def provisioned() -> dict[str, dict[str, Any]]:
    text = (PROVISIONING / "datasources" / "aifap.yaml").read_text()
    return {one["uid"]: one for one in yaml.safe_load(text)["datasources"]}


def test_the_datasources_are_the_provisioned_ones_and_read_only() -> None:
    found = provisioned()
    assert set(found) == {*DATABASES, METRICS_UID}
    for uid, name in DATABASES.items():
        one = found[uid]
        assert one["jsonData"]["database"] == name
        assert one["user"] == READER_ROLE
        assert one["secureJsonData"]["password"].startswith("$__file{/")
    for one in found.values():
        assert one["editable"] is False
        assert one["access"] == "proxy"


def test_every_query_asks_a_provisioned_datasource_of_its_type(board: dict[str, Any]) -> None:
    found = provisioned()
    for panel in panels_of(board):
        sources = [target["datasource"] for target in panel["targets"]]
        for source in sources:
            assert found[source["uid"]]["type"] == source["type"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        alike = len({source["uid"] for source in sources}) == 1
        expected = sources[0]["uid"] if alike else "-- Mixed --"
        assert panel["datasource"]["uid"] == expected, panel["title"]


def test_variables_exist_before_they_are_used(board: dict[str, Any]) -> None:
    known: set[str] = set()
    for variable in board["templating"]["list"]:
        assert used_in(variable["query"]) <= known | BUILT_IN, variable["name"]
        known.add(variable["name"])
        assert variable["name"] in json.dumps(board["panels"]) or variable["name"] == "owner"
    for question in questions_of("", board):
        assert used_in(question.text) <= known | BUILT_IN, question.title


def used_in(text: str) -> set[str]:
    """Variables, without macros (a name and a parenthesis) and legends."""
    return {a or b for a, b in re.findall(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+)\b(?!\())", text)}


def test_S26_values_of_people_stand_in_quotes_that_grafana_puts() -> None:
    for question in all_questions():
        for name in ("owner", "session", "earlier"):
            found = re.findall(rf"\$(?:\{{{name}(:\w+)?\}}|{name}\b)", question.text)
            assert set(found) <= {":sqlstring"}, question


def test_S50_provisioning_holds_no_password() -> None:
    for path in PROVISIONING.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if "password:" in line:
                assert line.split("password:")[1].strip().startswith("$__file{"), path


# --- Prometheus -----------------------------------------------------------------------------------


def told_series() -> re.Pattern[str]:
    """The names of all series that `/metrics` tells, out of the code that tells them."""
    names: list[str] = []
    for path in (ROOT / "api" / "telemetry").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                not isinstance(node, ast.Call)
                or not isinstance(node.func, ast.Name)
                or not node.args
            ):
                continue
            name = spelled(node.args[0])
            if name.startswith("aifap_"):
                names += [name + end for end in SERIES.get(node.func.id.lower(), ())]
    return re.compile("|".join(names))


def spelled(node: ast.expr) -> str:
    """A name as a pattern; what is put in may be any word."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else r"\w+" for part in node.values
        )
    return ""


def test_every_metric_that_a_panel_asks_for_is_told() -> None:
    told, asked = told_series(), set()
    for question in all_questions():
        if not question.is_sql:
            asked |= set(re.findall(r"aifap_\w+", question.text))
    assert asked
    assert {name for name in asked if not told.fullmatch(name)} == set()


def test_promtool_understands_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool here")
    rules = [
        {"record": f"panel:{number}", "expr": question.text.replace("$__rate_interval", "1m")}
        for number, question in enumerate(all_questions())
        if not question.is_sql
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    ran = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
