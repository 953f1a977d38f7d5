"""The vocabulary as JSON: dataclasses of `module.model` to plain documents and back.

Money travels as decimal strings, times as ISO 8601 with `Z`, enums by their value. Reading is
strict: a float where money belongs, a naive time, a missing field is InvalidInput that names the
field. Fields that the reader does not know are ignored, because documents only grow.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import TypeVar, Union, cast, get_args, get_origin, get_type_hints

from module.model.canonical import parse_instant, to_plain_json
from module.model.errors import InvalidInput, InvariantViolated
from module.model.money import parse_decimal, plain

T = TypeVar("T")


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
    return cast(T, _read(kind, document, name or kind.__name__))


def list_from_document(kind: type[T], document: object, *, name: str = "list") -> list[T]:
    """The list of `kind` that `document` spells."""
    if not isinstance(document, list):
        raise InvalidInput(f"{name} must be a list, got {type(document).__name__}")
    return [cast(T, _read(kind, item, f"{name}[{i}]")) for i, item in enumerate(document)]


@cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Of a dataclass; None for anything else."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind)


def _read(kind: object, value: object, name: str) -> object:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(kind) if choice is not type(None)]
        return None if value is None else _read(choices[0], value, name)
    if origin in (tuple, Mapping):
        return _read_container(kind, value, name)
    if not isinstance(kind, type):
        raise InvariantViolated(f"{name}: no reader for {kind!r}")
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, name)
    if kind is Decimal:
        if not isinstance(value, (str, int)):
            raise InvalidInput(f"{name} must be a decimal string, got {type(value).__name__}")
        return parse_decimal(value, name=name)
    if kind is datetime:
        return _read_instant(value, name)
    if issubclass(kind, Enum):
        return _read_enum(kind, value, name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidInput(f"{name} must be {kind.__name__}, got {type(value).__name__}")
    return value


def _read_container(kind: object, value: object, name: str) -> object:
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InvalidInput(f"{name} must be a list, got {type(value).__name__}")
        item_kind = get_args(kind)[0]
        return tuple(_read(item_kind, item, f"{name}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be an object, got {type(value).__name__}")
    item_kind = get_args(kind)[1]
    return {str(key): _read(item_kind, item, f"{name}.{key}") for key, item in value.items()}


def _read_dataclass(kind: type, value: object, name: str) -> object:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be an object, got {type(value).__name__}")
    hints = _hints(kind)
    arguments: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            inner = f"{name}.{field.name}"
            arguments[field.name] = _read(hints[field.name], value[field.name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InvalidInput(f"{name}.{field.name} is missing")
    return kind(**arguments)


def _read_instant(value: object, name: str) -> datetime:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be an ISO 8601 time, got {type(value).__name__}")
    try:
        return parse_instant(value)
    except (ValueError, InvariantViolated) as error:
        raise InvalidInput(
            f"{name} must be an ISO 8601 time with an offset, got {value[:40]!r}"
        ) from error


def _read_enum(kind: type[Enum], value: object, name: str) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(item.value) for item in kind)
        raise InvalidInput(f"{name} must be one of {known}, got {str(value)[:40]!r}") from error
