"""A preview as a terminal page: what would be traded, what it costs, what is left. No effects."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.run_view import items, mapping

ARROW = " → "
NEAR = Decimal("0.1")
DASH = "–"


def render_preview(view: Mapping[str, object]) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [_head(view), _orders(view), _account(view), _positions(view)]
    if items(view.get("skipped")):
        parts.append(_skipped(view))
    parts.append(_foot(view))
    return Group(*[part for pair in ((part, Text()) for part in parts) for part in pair][:-1])


def _head(view: Mapping[str, object]) -> RenderableType:
    subject = f"session {view['session_id']}" if view.get("session_id") else "weights by hand"
    if not view.get("session_id") and view.get("strategy_name"):
        subject = f"strategy {view['strategy_name']}"
    line = Text.assemble(
        ("Preview  ", "bold"),
        f"{subject} on {view['account']} ({view['trade_env']} {view['market']})",
    )
    at = str(view["made_at"]).replace("T", " ")
    line.append(
        f"\n{view['trade_mode']}, {view['leverage']}x {view['margin_mode']}, base "
        f"{_money(view['base'])} USDT, threshold {_percent(view['threshold'])}, as of {at}",
        style="dim",
    )
    return line


def _orders(view: Mapping[str, object]) -> RenderableType:
    legs = items(view.get("legs"))
    if not legs:
        return Text("Nothing would be traded.", style="yellow")
    table = _table("Orders, in the order they leave")
    for name in ("symbol", "what", "order"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "weight", "mark", "average", "slippage", "fee", "stop loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in map(mapping, legs):
        estimate = mapping(row.get("estimate"))
        is_buy = row["side"] == "buy"
        part = "" if _number(estimate["unfilled_size"]) == 0 else " !"
        table.add_row(
            str(row["symbol"]),
            str(row["action"]),
            Text(f"{row['side']} {row['size']}", style="green" if is_buy else "red"),
            _money(row["notional"]),
            _percent(row["current_weight"]) + ARROW + _percent(row["target_weight"]),
            _price(row["reference_price"]),
            _price(estimate["average_price"]) + part,
            f"{_money(estimate['slippage'])} ({_basis_points(estimate['slippage_fraction'])})",
            _money(estimate["fee"]),
            _price(row.get("stop_loss")),
        )
    totals = mapping(view.get("totals"))
    table.add_section()
    table.add_row(
        "together",
        "",
        f"{totals['legs']} orders",
        _money(totals["turnover_notional"]),
        f"turnover {_percent(totals['turnover'])}",
        "",
        "",
        _money(totals["slippage"]),
        _money(totals["fees"]),
        "",
        style="bold",
    )
    return table


def _account(view: Mapping[str, object]) -> RenderableType:
    before, after = mapping(view.get("before")), mapping(view.get("after"))
    totals = mapping(view.get("totals"))
    table = _table("The account, in USDT")
    table.add_column("", no_wrap=True)
    for name in ("equity", "free", "margin", "positions", "leverage"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, row in (("now", before), ("then", after)):
        table.add_row(
            label,
            _money(row["equity"]),
            _money(row["available"]),
            _money(row["margin_used"]),
            _money(row["gross"]),
            f"{_number(row['leverage']):.2f}x",
        )
    cost = f"cost {_money(totals['cost'])} ({_basis_points(totals['cost_fraction'])} of turnover)"
    table.caption = cost
    table.caption_justify = "left"
    return table


def _positions(view: Mapping[str, object]) -> RenderableType:
    rows = items(view.get("positions"))
    if not rows:
        return Text("No position, before or after.", style="dim")
    table = _table("Positions, now → then")
    table.add_column("symbol", no_wrap=True)
    for name in ("size", "weight", "margin", "liquidation at", "distance", "stop loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in map(mapping, rows):
        before, after = mapping(row.get("before")), mapping(row.get("after"))
        table.add_row(
            str(row["symbol"]),
            _pair(_size(before["size"]), _size(after["size"])),
            _pair(_percent(before["weight"]), _percent(after["weight"])),
            _pair(_money(before["margin"]), _money(after["margin"])),
            _pair(_price(before["liquidation_price"]), _price(after["liquidation_price"])),
            _distances(before["liquidation_distance"], after["liquidation_distance"]),
            _pair(_price(before["stop_loss"]), _price(after["stop_loss"])),
        )
    return table


def _skipped(view: Mapping[str, object]) -> RenderableType:
    table = _table("Not traded")
    table.add_column("symbol", no_wrap=True)
    for name in ("weight", "residual"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    for row in map(mapping, items(view.get("skipped"))):
        table.add_row(
            str(row["symbol"]),
            _percent(row["current_weight"]) + ARROW + _percent(row["target_weight"]),
            _percent(row["residual"]),
            str(row["words"]),
        )
    return table


def _foot(view: Mapping[str, object]) -> RenderableType:
    text = Text()
    for note in items(view.get("notes")):
        text.append(f"• {note}\n", style="yellow")
    until = str(view["fresh_until"]).replace("T", " ")
    if view.get("executable"):
        tolerance = _percent(view["price_tolerance"])
        text.append(f"Good until {until}, while no price moves by more than {tolerance}:\n")
        text.append(f"aifap preview --execute {view['plan_hash']}", style="bold")
    else:
        text.append(f"plan {view['plan_hash']}", style="dim")
    return text


def render_execution(execution: Mapping[str, object]) -> RenderableType:
    """What became of a plan that was carried out."""
    legs = items(execution.get("legs"))
    table = _table("Orders")
    for name in ("symbol", "what", "order", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("filled", "average", "fee"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in map(mapping, legs):
        whole = row["filled"] == row["size"]
        table.add_row(
            str(row["symbol"]),
            str(row["action"]),
            f"{row['side']} {row['size']}",
            Text(str(row["state"]), style="green" if whole else "yellow"),
            _size(row["filled"]),
            _price(row["average_price"]),
            DASH if row["fee"] is None else _money(row["fee"]),
            str(row["message"] or ""),
        )
    state = str(execution.get("state", "unknown"))
    told = Text.assemble(
        (f"session {execution.get('session_id')} {state}", "bold"), f": {execution.get('reason')}"
    )
    return Group(table, Text(), told) if legs else told


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )


def _number(value: object) -> Decimal:
    return Decimal(str(value))


def _money(value: object) -> str:
    return f"{_number(value):,.2f}"


def _size(value: object) -> str:
    return DASH if _number(value) == 0 else str(value)


def _percent(value: object) -> str:
    return f"{_number(value) * 100:.2f} %"


def _basis_points(value: object) -> str:
    return f"{_number(value) * 10_000:.1f} bp"


def _price(value: object) -> str:
    if value is None:
        return DASH
    number = _number(value)
    places = max(2, 5 - number.adjusted()) if number < 1000 else 2
    return f"{number:,.{places}f}"


def _pair(before: str, after: str) -> str:
    return before if before == after else before + ARROW + after


def _distances(before: object, after: object) -> Text:
    first, then = _distance(before), _distance(after)
    if first == then:
        return Text(*first)
    return Text.assemble(first, ARROW, then)


def _distance(value: object) -> tuple[str, str]:
    if value is None:
        return DASH, ""
    return _percent(value), "bold red" if _number(value) < NEAR else ""
