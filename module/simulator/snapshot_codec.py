"""A world's state as JSON and back: a walk over the objects of this package, by their attributes.

    Venue -> parts (World, PriceFeed, Ledger, ...) -> encode -> JSON -> decode into fresh parts

Nothing is listed by hand but what a fresh world makes anew (`REBUILT`): a new attribute is kept by
itself, and one that cannot be kept (a function, a file) is an error, so that a snapshot is whole or
is not made. Only our own classes are ever made from a file.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Final, cast

from module.model.errors import InvalidInput, InvariantViolated

PACKAGES: Final = ("module.simulator.", "module.model.")
REBUILT: Final[dict[str, frozenset[str]]] = {
    "World": frozenset(
        {"market", "settings", "futures", "spot", "sleeps", "trigger_gate"}
        | {"_id_rank", "_shapes", "_futures_wallets"}
    ),
    "PriceFeed": frozenset({"_market", "_steps", "_bands", "_exposure_at", "_minutes"}),
    "FaultDesk": frozenset({"_engine", "_record", "_deliver", "_changed"}),
}
"""By class: what the constructor makes, and caches that fill themselves again."""
_INTEGER_MAX: Final = 2**63 - 1


def attributes(instance: object) -> list[str]:
    """The names of everything that makes up `instance`, without what is rebuilt."""
    kind = type(instance)
    if is_dataclass(instance):
        names = [each.name for each in fields(instance)]
    else:
        names = list(vars(instance))
    rebuilt = REBUILT.get(kind.__name__, frozenset())
    return [name for name in names if name not in rebuilt]


class Encoder:
    """Writes object graphs; `parts` are the objects that a fresh world has already."""

    def __init__(self, parts: Sequence[object]) -> None:
        self._numbers = {id(part): number for number, part in enumerate(parts)}
        self._kept: list[object] = list(parts)  # ids must not be given away meanwhile
        self._kinds: dict[type, int] = {}
        self._layouts: list[tuple[str, list[str]]] = []
        self._containers: set[int] = set()

    def document(self) -> dict[str, object]:
        """Everything about the parts, ready for JSON."""
        parts = list(self._kept)
        states = [[self.encode(getattr(part, name)) for name in attributes(part)] for part in parts]
        return {
            "parts": [[type(part).__name__, attributes(part)] for part in parts],
            "states": states,
            "layouts": [list(layout) for layout in self._layouts],
        }

    def encode(self, value: object) -> object:
        """`value` in JSON's words: plain ones as they are, everything else as a tagged list."""
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int:
            number = cast("int", value)
            return number if -_INTEGER_MAX <= number <= _INTEGER_MAX else ["i", str(number)]
        if kind is Decimal:
            return ["d", str(value)]
        if isinstance(value, Enum):
            return ["e", _name(kind), value.value]
        if kind is tuple or kind is frozenset:
            items = cast("Iterable[object]", value)
            return [kind.__name__, *self._items(items, ordered=kind is tuple)]
        if kind in (list, set, dict, defaultdict):
            return self._container(value)
        return self._object(value)

    def _container(self, value: object) -> object:
        if id(value) in self._containers:
            raise InvariantViolated(f"one {type(value).__name__} belongs to two objects")
        self._containers.add(id(value))
        if isinstance(value, dict):
            factory = value.default_factory if isinstance(value, defaultdict) else None
            if isinstance(value, defaultdict) and factory is not dict:
                raise InvariantViolated(f"a defaultdict of {factory!r} cannot be kept")
            pairs = [self.encode(each) for pair in value.items() for each in pair]
            return ["dict" if factory is None else "defaultdict", *pairs]
        items = cast("Iterable[object]", value)
        return [type(value).__name__, *self._items(items, ordered=isinstance(value, list))]

    def _items(self, items: Iterable[object], *, ordered: bool) -> list[object]:
        encoded = [self.encode(item) for item in items]
        return encoded if ordered else sorted(encoded, key=json.dumps)

    def _object(self, value: object) -> object:
        number = self._numbers.get(id(value))
        if number is not None:
            return ["r", number]
        kind = type(value)
        if not kind.__module__.startswith(PACKAGES) or isinstance(value, type):
            raise InvariantViolated(f"{kind.__qualname__} cannot be kept: {value!r}"[:200])
        number = self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        layout = self._kinds.get(kind)
        if layout is None:
            layout = self._kinds[kind] = len(self._layouts)
            self._layouts.append((_name(kind), attributes(value)))
        names = self._layouts[layout][1]
        return ["o", number, layout, *[self.encode(getattr(value, name)) for name in names]]


class Decoder:
    """Reads what `Encoder` wrote into the parts of a fresh world."""

    def __init__(self, parts: Sequence[object], layouts: Sequence[tuple[str, list[str]]]) -> None:
        self._objects: dict[int, object] = dict(enumerate(parts))
        self._layouts = [(_class(name), names) for name, names in layouts]

    def fill(self, part: object, names: Sequence[str], state: Sequence[object]) -> None:
        """Give `part` the attributes that it had."""
        if list(names) != attributes(part):
            raise InvalidInput(f"{type(part).__name__} has other attributes than the snapshot")
        for name, value in zip(names, state, strict=True):
            decoded = self.decode(value)
            if decoded is not part:
                object.__setattr__(part, name, decoded)

    def decode(self, value: object) -> object:
        """The value again; InvalidInput for what is none of ours."""
        if not isinstance(value, list):
            return value
        tag, *rest = value
        match tag:
            case "d":
                return Decimal(rest[0])
            case "e":
                return _class(rest[0])(rest[1])
            case "r":
                return self._objects[rest[0]]
            case "o":
                return self._object(rest)
            case "i":
                return int(rest[0])
            case "dict" | "defaultdict":
                decoded = [self.decode(each) for each in rest]
                pairs = dict(zip(decoded[::2], decoded[1::2], strict=True))
                return pairs if tag == "dict" else defaultdict(dict, pairs)
            case _:
                return self._collection(tag, [self.decode(each) for each in rest])

    def _collection(self, tag: object, items: list[object]) -> object:
        match tag:
            case "list":
                return items
            case "tuple":
                return tuple(items)
            case "set":
                return set(items)
            case "frozenset":
                return frozenset(items)
            case _:
                raise InvalidInput(f"a snapshot has nothing that is tagged {tag!r}")

    def _object(self, rest: Sequence[object]) -> object:
        number, layout = cast("int", rest[0]), cast("int", rest[1])
        kind, names = self._layouts[layout]
        made: object = object.__new__(kind)
        self._objects[number] = made
        for name, value in zip(names, rest[2:], strict=True):
            object.__setattr__(made, name, self.decode(value))
        return made


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> type:
    """A class of ours that is loaded; nothing else is ever made."""
    module_name, _, qualified = name.partition(":")
    module = sys.modules.get(module_name)
    found = getattr(module, qualified, None) if module_name.startswith(PACKAGES) else None
    if not isinstance(found, type):
        raise InvalidInput(f"a snapshot names {name!r}, which is no class of ours")
    return found
