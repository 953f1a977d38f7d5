"""Requests that are changed on their way in: another size or price, a batch that lost its end."""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.engine import Engine
from module.simulator.faults.faults import FaultChange, FaultWords
from module.simulator.wire.bitget_params import Params

_ITEMS = "orderList"


def changed_params(words: FaultWords, params: Params, engine: Engine) -> Params | None:
    """The words of a request as the exchange gets them; None when there was nothing to change."""
    match words.change:
        case FaultChange.FIRST_LEGS:
            items = params.values.get(_ITEMS)
            if not isinstance(items, list) or len(items) <= words.leg:
                return None
            return Params({**params.values, _ITEMS: items[: words.leg]})
        case FaultChange.SPOIL_LEG:
            items = params.values.get(_ITEMS)
            if not isinstance(items, list) or len(items) <= words.leg:
                return None
            spoilt = [
                {**item, "size": "0"} if number == words.leg and isinstance(item, dict) else item
                for number, item in enumerate(items)
            ]
            return Params({**params.values, _ITEMS: spoilt})
        case FaultChange.SIZE | FaultChange.PRICE:
            return _scaled(words, params, engine)
        case FaultChange.NONE:
            return None


def _scaled(words: FaultWords, params: Params, engine: Engine) -> Params | None:
    """Size or price times `factor`, on the step of the symbol."""
    symbol = params.optional_symbol() or ""
    name = words.change.value
    sent = params.positive(name)
    step = _step(engine, symbol, spot=params.text("productType") is None, size=name == "size")
    if sent is None or step is None:
        return None
    changed = max(step, sent * words.factor // step * step)
    return None if changed == sent else Params({**params.values, name: str(changed)})


def _step(engine: Engine, symbol: str, *, spot: bool, size: bool) -> Decimal | None:
    if spot:
        pair = engine.spot_instruments().get(symbol)
        return None if pair is None else (pair.size_step if size else pair.price_step)
    rules = engine.futures_instruments().get(symbol)
    return None if rules is None else (rules.size_step if size else rules.price_step)
