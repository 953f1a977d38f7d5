"""The vocabulary as JSON: dataclasses of `module.model` to plain documents and back.

Money travels as decimal strings, times as ISO 8601 with `Z`, enums by their value. Reading is
strict: a float where money belongs, a naive time, a missing field is InvalidInput that names the
field. Fields that the reader does not know are ignored, because documents only grow.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import TypeVar, Union, cast, get_args, get_origin, get_type_hints

from module.model.canonical import parse_instant, to_plain_json
from module.model.errors import InvalidInput, InvariantViolated
from module.model.money import parse_decimal, plain

T = TypeVar("T")
_Reader = Callable[[object], object]


def to_document(value: object) -> object:
    """`value` as plain JSON: dataclasses become objects, field by field."""
    kind: type = type(value)
    if kind is Decimal:
        return plain(value)  # type: ignore[arg-type]
    if kind is str or value is None or kind is int or kind is bool:
        return value
    names = _field_names(kind)
    if names is not None:
        return {name: to_document(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_document(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_document(item) for item in value]
    return to_plain_json(value)


def from_document(kind: type[T], document: object, *, name: str = "") -> T:
    """The `kind` (a dataclass, enum, Decimal, datetime, str …) that `document` spells."""
    try:
        return cast(T, _reader(cast(object, kind))(document))
    except _Misspelled as wrong:
        raise wrong.told(name or kind.__name__) from wrong


def list_from_document(kind: type[T], document: object, *, name: str = "list") -> list[T]:
    """The list of `kind` that `document` spells."""
    if not isinstance(document, list):
        raise InvalidInput(f"{name} must be a list, got {type(document).__name__}")
    try:
        return cast("list[T]", _read_items(_reader(cast(object, kind)), document))
    except _Misspelled as wrong:
        raise wrong.told(name) from wrong


@cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Of a dataclass; None for anything else."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


class _Misspelled(Exception):
    """Not what was expected; gathers where it stands on its way out, so that reading what is
    spelled well need not name anything."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._what = what
        self._place = ""

    def within(self, step: str) -> _Misspelled:
        """The same, seen from one level further out."""
        self._place = step + self._place
        return self

    def told(self, name: str) -> InvalidInput:
        """What the caller is told."""
        return InvalidInput(f"{name}{self._place} {self._what}")


@cache
def _reader(kind: object) -> _Reader:
    """How to read a `kind`; thought out once."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _optional_reader(
            next(choice for choice in get_args(kind) if choice is not type(None))
        )
    if origin is tuple:
        return _tuple_reader(get_args(kind)[0])
    if origin is Mapping:
        return _mapping_reader(get_args(kind)[1])
    if not isinstance(kind, type):
        return _no_reader(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(kind)
    if kind is Decimal:
        return _read_decimal
    if kind is datetime:
        return _read_instant
    if issubclass(kind, Enum):
        return _enum_reader(kind)
    return _plain_reader(kind)


def _optional_reader(kind: object) -> _Reader:
    def read(value: object) -> object:
        return None if value is None else read_kind(value)

    read_kind = _reader(kind)
    return read


def _tuple_reader(item_kind: object) -> _Reader:
    def read(value: object) -> object:
        if not isinstance(value, list):
            raise _Misspelled(f"must be a list, got {type(value).__name__}")
        return tuple(_read_items(_reader(item_kind), value))

    return read


def _read_items(read_item: _Reader, items: list[object]) -> list[object]:
    found: list[object] = []
    try:
        for item in items:
            found.append(read_item(item))
    except _Misspelled as wrong:
        raise wrong.within(f"[{len(found)}]") from None
    return found


def _mapping_reader(item_kind: object) -> _Reader:
    def read(value: object) -> object:
        if not isinstance(value, Mapping):
            raise _Misspelled(f"must be an object, got {type(value).__name__}")
        read_item, found, key = _reader(item_kind), {}, ""
        try:
            for name, item in value.items():
                key = str(name)
                found[key] = read_item(item)
        except _Misspelled as wrong:
            raise wrong.within(f".{key}") from None
        return found

    return read


def _dataclass_reader(kind: type) -> _Reader:
    fields: list[tuple[str, bool, _Reader]] = []  # filled at the first use: kinds hold each other

    def learn() -> None:
        hints = get_type_hints(kind)
        missing = dataclasses.MISSING
        fields[:] = [
            (
                field.name,
                field.default is missing and field.default_factory is missing,
                _reader(hints[field.name]),
            )
            for field in dataclasses.fields(kind)
        ]

    def read(value: object) -> object:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise _Misspelled(f"must be an object, got {type(value).__name__}")
        if not fields:
            learn()
        arguments: dict[str, object] = {}
        name = ""
        try:
            for name, needed, read_field in fields:
                if name in value:
                    arguments[name] = read_field(value[name])
                elif needed:
                    raise _Misspelled("is missing")
        except _Misspelled as wrong:
            raise wrong.within(f".{name}") from None
        return kind(**arguments)

    return read


def _read_decimal(value: object) -> object:
    if not isinstance(value, (str, int)):
        raise _Misspelled(f"must be a decimal string, got {type(value).__name__}")
    try:
        return parse_decimal(value)
    except InvalidInput as error:
        raise _Misspelled(error.message.removeprefix("value ")) from error


def _read_instant(value: object) -> object:
    if not isinstance(value, str):
        raise _Misspelled(f"must be an ISO 8601 time, got {type(value).__name__}")
    try:
        return parse_instant(value)
    except (ValueError, InvariantViolated) as error:
        raise _Misspelled(f"must be an ISO 8601 time with an offset, got {value[:40]!r}") from error


def _enum_reader(kind: type[Enum]) -> _Reader:
    members: dict[object, Enum] = {member.value: member for member in kind}

    def read(value: object) -> object:
        if type(value) is str and value in members:
            return members[value]
        try:
            return kind(value)
        except ValueError as error:
            known = ", ".join(str(item.value) for item in kind)
            raise _Misspelled(f"must be one of {known}, got {str(value)[:40]!r}") from error

    return read


def _plain_reader(kind: type) -> _Reader:
    def read(value: object) -> object:
        if type(value) is kind:
            return value
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _Misspelled(f"must be {kind.__name__}, got {type(value).__name__}")
        return value

    return read


def _no_reader(kind: object) -> _Reader:
    def read(value: object) -> object:
        raise InvariantViolated(f"no reader for {kind!r}")

    return read
