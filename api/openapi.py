"""What OpenAPI cannot read from the routes: tokens, and that every error is a problem document."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from module.wire.problem_codec import PROBLEM_CONTENT_TYPE

_VALIDATION: Final = ("HTTPValidationError", "ValidationError")  # FastAPI's own form, never sent
_PUBLIC: Final = "/health/"
_FIELD: Final = {
    "type": "object",
    "required": ["field", "message"],
    "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do, in words."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "reason": {"type": "string", "description": "A finer code, where there is one."},
        "errors": {"type": "array", "items": _FIELD, "description": "Each wrong field."},
        "retry_after_s": {"type": "number"},
    },
}


def with_problems(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document that FastAPI made of the routes, with what they have in common: a bearer's token
    (but for the probes), and a problem document as the answer to whatever goes wrong."""
    found = deepcopy(dict(document))
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _VALIDATION:
        schemas.pop(name, None)
    schemas["Problem"] = deepcopy(_PROBLEM)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if path.startswith(_PUBLIC) else [{"token": []}]
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "What is wrong, as a problem document (RFC 9457).",
                "content": {
                    PROBLEM_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                },
            }
    return found
