"""What a person sees while `aifap run` works: the live document as a terminal page. No effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

BAR_WIDTH = 22
ORDERS_SHOWN = 8
ALERTS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What does not change while it runs."""

    session_id: str
    dashboard_url: str
    market_id: str
    cycles: int
    trouble: str = ""


def render(document: Mapping[str, object] | None, facts: RunFacts) -> RenderableType:
    """The whole page."""
    session = session_of(document, facts.session_id)
    if document is None or session is None:
        return Panel(Text("waiting for the first news of the session …", style="dim"))
    result = mapping(session.get("result"))
    letter = mapping(session.get("letter"))
    parts: list[RenderableType] = [
        _head(document, session, facts),
        _numbers(mapping(result.get("portfolio")), mapping(result.get("indicators"))),
        _weights(items(result.get("symbols")), mapping(letter.get("targets"))),
        _orders(letter),
    ]
    alerts = _alerts(items(document.get("alerts")))
    if alerts is not None:
        parts.append(alerts)
    if facts.trouble:
        parts.append(Text(facts.trouble, style="yellow"))
    return Group(*parts)


def line_of(document: Mapping[str, object], facts: RunFacts) -> str:
    """One line for a terminal that cannot redraw."""
    session = session_of(document, facts.session_id) or {}
    portfolio = mapping(mapping(session.get("result")).get("portfolio"))
    held = ", ".join(
        f"{row.get('symbol')} {percent(row.get('weight'))}"
        for row in map(mapping, items(mapping(session.get("result")).get("symbols")))
        if number(row.get("size"))
    )
    parts = [clock_text(document.get("now")), progress(session, facts)]
    if portfolio:
        at = clock_text(mapping(session.get("result")).get("minute"))[6:11]
        parts.append(f"PV {money(portfolio.get('current_pv'))}")
        parts.append(f"ROE {percent(portfolio.get('roe'))}")
        parts.append(f"held at {at}: {held or 'nothing'}")
    return "  ".join(parts)


def progress(session: Mapping[str, object], facts: RunFacts) -> str:
    """How far it is; the cycle that closes everything at the end comes on top of the others."""
    cycle, state = session.get("cycle"), session.get("state")
    number_ = cycle if isinstance(cycle, int) else 0
    stage = mapping(session.get("letter")).get("stage")
    if state in ("ended", "failed"):
        return f"{state}: {session.get('reason') or 'no reason was given'}"
    if not number_ and state != "stopping":
        return f"waiting for the first of {facts.cycles} cycles"
    if number_ > facts.cycles or state == "stopping":
        done = min(number_, facts.cycles)
        return f"cycle {done} of {facts.cycles}, ending {session.get('end_state') or ''}".rstrip()
    return f"cycle {number_} of {facts.cycles}: {stage or 'begins'}"


def session_of(
    document: Mapping[str, object] | None, session_id: str
) -> Mapping[str, object] | None:
    """The session of that id in a live document."""
    for item in items((document or {}).get("sessions")):
        found = mapping(item)
        if found.get("session_id") == session_id:
            return found
    return None


def _head(
    document: Mapping[str, object], session: Mapping[str, object], facts: RunFacts
) -> RenderableType:
    line = Text()
    line.append(" AIFAP ", style="bold white on blue")
    line.append(f"  {facts.session_id}", style="bold")
    line.append(f"  {session.get('strategy_name')} on {facts.market_id}", style="dim")
    state = str(session.get("state"))
    line.append(f"  {state}", style="green" if state == "running" else "yellow")
    second = Text(" world ", style="dim")
    second.append(clock_text(document.get("now")), style="bold cyan")
    second.append(f"   {progress(session, facts)}", style="bold")
    second.append(f"   {facts.dashboard_url}", style="underline blue")
    return Group(line, second)


def _numbers(portfolio: Mapping[str, object], indicators: Mapping[str, object]) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    values = (
        ("PV", money(portfolio.get("current_pv"))),
        ("net profit", money(portfolio.get("netprofit"), signed=True)),
        ("ROE", percent(portfolio.get("roe"), signed=True)),
        ("max drawdown", percent(indicators.get("max_drawdown"))),
        ("margin", money(portfolio.get("margin_size"))),
        ("fees", money(portfolio.get("fees"), signed=True)),
    )
    for _ in values:
        table.add_column()
    table.add_row(*(Text(name, style="dim") for name, _ in values))
    table.add_row(*(Text(value, style=_tone(value)) for _, value in values))
    return Panel(table, border_style="dim", padding=(0, 1))


def _weights(symbols: Sequence[object], targets: Mapping[str, object]) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name, side in (
        ("symbol", "left"), ("target", "right"), ("actual", "right"), ("", "left"),
        ("value", "right"), ("uPnL", "right"), ("stop", "right"),
    ):  # fmt: skip
        table.add_column(name, justify="left" if side == "left" else "right")
    rows = {str(mapping(item).get("symbol")): mapping(item) for item in symbols}
    for symbol in sorted(set(rows) | set(targets)):
        row = rows.get(symbol, {})
        weight = number(row.get("weight"))
        target = number(mapping(targets.get(symbol)).get("weight"))
        pnl = money(row.get("unrealized_pnl"), signed=True)
        table.add_row(
            symbol,
            percent(target),
            percent(weight),
            _bar(weight, target),
            money(row.get("position_value")),
            Text(pnl, style=_tone(pnl)),
            price(row.get("stop_loss")),
        )
    if not rows and not targets:
        table.add_row(Text("flat", style="dim"))
    return Panel(table, title="targets and weights", border_style="dim", title_align="left")


def _bar(weight: Decimal | None, target: Decimal | None) -> Text:
    filled = min(BAR_WIDTH, round(abs(weight or Decimal(0)) * BAR_WIDTH))
    mark = min(BAR_WIDTH - 1, round(abs(target or Decimal(0)) * BAR_WIDTH))
    tone = "green" if (weight or 0) >= 0 else "red"
    text = Text()
    for place in range(BAR_WIDTH):
        if place == mark and target:
            text.append("|", style="bold white")
        else:
            text.append("━" if place < filled else " ", style=tone)
    return text


def _orders(letter: Mapping[str, object]) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("order", "side", "case", "size", "filled", "price", "state"):
        table.add_column(name)
    orders = [mapping(item) for item in items(letter.get("orders"))]
    for order in orders[:ORDERS_SHOWN]:
        state = str(order.get("state"))
        table.add_row(
            str(order.get("symbol")),
            Text(str(order.get("side")), style="green" if order.get("side") == "buy" else "red"),
            str(order.get("case")),
            str(order.get("size")),
            str(order.get("filled_size") or "-"),
            price(order.get("average_price")),
            Text(state, style="green" if state == "filled" else "yellow"),
        )
    if not orders:
        why = letter.get("reason") or "nothing to trade"
        table.add_row(Text(str(why), style="dim"))
    title = f"last cycle {clock_text(letter.get('cycle'))} · {letter.get('stage') or 'none yet'}"
    return Panel(table, title=title, border_style="dim", title_align="left")


def _alerts(alerts: Sequence[object]) -> RenderableType | None:
    if not alerts:
        return None
    text = Text()
    for item in alerts[:ALERTS_SHOWN]:
        alert = mapping(item)
        tone = {"critical": "bold red", "error": "red"}.get(str(alert.get("severity")), "blue")
        text.append(f"{clock_text(alert.get('at'))}  ", style="dim")
        text.append(f"{alert.get('title')}  ", style=tone)
        lines = [item for item in items(alert.get("lines")) if isinstance(item, list)]
        text.append("  ".join(f"{line[0]}: {line[1]}" for line in lines[1:3]) + "\n", style="dim")
    text.rstrip()
    return Panel(text, title="alerts", border_style="dim", title_align="left")


# --- reading and spelling -------------------------------------------------------------------------


def mapping(value: object) -> Mapping[str, object]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[object]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def number(value: object) -> Decimal | None:
    """A number as the API spells it."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def money(value: object, *, signed: bool = False) -> str:
    """Two places and thousands."""
    found = number(value)
    return "-" if found is None else f"{found:{'+' if signed else ''},.2f}"


def percent(value: object, *, signed: bool = False) -> str:
    """A fraction in percent."""
    found = number(value)
    return "-" if found is None else f"{found * 100:{'+' if signed else ''}.2f} %"


def price(value: object) -> str:
    """Six significant digits."""
    found = number(value)
    return "-" if found is None else f"{float(found):.6g}"


def clock_text(value: object) -> str:
    """`2026-11-21T10:30:00Z` as `11-21 10:30 UTC`."""
    text = str(value or "")
    return f"{text[5:16].replace('T', ' ')} UTC" if len(text) >= 16 else "-"


def _tone(text: str) -> str:
    if text.startswith("-") and len(text) > 1:
        return "red"
    return "green" if text.startswith("+") else "bold"
