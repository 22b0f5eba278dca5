"""Check an object against its schema as Kubernetes' decoder does: types, unknown fields, duplicate fields.

Built-in kinds go through `decode`, which refuses wrong types with the texts of Go's JSON decoder and leaves out null
and unknown fields. Custom resources go through `prune`, which leaves out unknown fields and judges nothing else.
Paths are those of field validation: `spec.containers[0].foo`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from ._fastshape import compile_fast
from ._goformats import (
    INT32,
    INT64,
    base64_fault,
    canonical_base64,
    canonical_time,
    in_range,
    json_kind,
    quote,
    time_fault,
)
from ._gonames import Place, field_path, go_place, go_type
from .quantity import QuantityError, parse_json
from .schema import ANY, Schema

__all__ = [
    "DecodeError",
    "coded",
    "decode",
    "duplicate_fields",
    "has_duplicates",
    "prune",
    "strict_decoding_error",
    "strict_errors",
    "unknown_field",
]

_OWN_KIND = ("JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool")
"""Ends of the names of types that hold an object of the type in which they stand, or something else."""
MAX_REPORTED = 100
MAX_DEPTH = 200
_COMPILED = 512


class DecodeError(ValueError):
    """A value that its Go type cannot hold; the message is the one of Go's decoder."""


def unknown_field(path: str) -> str:
    """Return field validation's message for an unknown field."""
    return f"unknown field {quote(path)}"


def strict_decoding_error(messages: Iterable[str]) -> str:
    """Return the message that refuses an object under strict field validation."""
    return "strict decoding error: " + ", ".join(messages)


def decode(schema: Schema, value: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the object as its Go type would hold it, and the messages for its unknown fields in document order.

    The input is not changed; where nothing needs to change it is what comes back. Null is absent in objects and the
    zero value in lists and maps; quantities, times and bytes come back as Go writes them (`0.5` as `500m`). At most 100
    messages, each once. Raises DecodeError for the first value of a wrong type; what Kubernetes parses by code
    (quantities, times) comes before other types, as in Go.
    """
    surely_right = _fast(schema)
    if surely_right is not None:
        trimmed = _without_null_stamp(schema, value)
        if surely_right(trimmed):
            return trimmed, []
    walk = _Decoding()
    made = walk.value(schema, value, None, 0)
    if walk.wrong is not None:
        raise walk.wrong
    return made, list(walk.messages)


@lru_cache(maxsize=_COMPILED)
def _fast(schema: Schema) -> Callable[[Any], bool] | None:
    return compile_fast(schema)


def _without_null_stamp(schema: Schema, value: Any) -> Any:
    """Return the object without the null `creationTimestamp` of many Go clients, so that they stay on the fast way."""
    metadata = value.get("metadata") if type(value) is dict else None
    if type(metadata) is not dict or metadata.get("creationTimestamp", "") is not None:
        return value
    field = schema.fields.get("metadata")
    if field is None or "creationTimestamp" not in field.fields:
        return value
    return {**value, "metadata": {name: inner for name, inner in metadata.items() if name != "creationTimestamp"}}


class _Decoding:
    """One object's way through the full check: `wrong` is the first mismatch, `messages` name what is left out."""

    __slots__ = ("messages", "wrong")

    def __init__(self) -> None:
        self.messages: dict[str, None] = {}
        self.wrong: DecodeError | None = None

    def value(self, schema: Schema, value: Any, place: Place, depth: int) -> Any:
        """Return what the schema's Go type would hold; depth counts the containers around the value."""
        match schema.shape:
            case "string" if type(value) is str and not schema.format:
                return value
            case "object" if isinstance(value, dict):
                return self._object(schema, value, place, depth)
            case "map" if isinstance(value, dict):
                return self._map(schema, value, place, depth)
            case "list" if isinstance(value, list):
                return self._list(schema, value, place, depth)
            case "any":
                return value
        return self._scalar(schema, value, place)

    def _object(self, schema: Schema, value: dict[str, Any], place: Place, depth: int) -> dict[str, Any]:
        if depth >= MAX_DEPTH:
            raise DecodeError(f"exceeded max depth: {quote(field_path(place))} has more than {MAX_DEPTH} levels")
        fields, owner, made = schema.fields, schema.name, {}
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                if schema.preserve_unknown:
                    made[name] = inner
                elif len(self.messages) < MAX_REPORTED:
                    self.messages[unknown_field(field_path((place, owner, name)))] = None
            elif inner is not None:
                if field.name.endswith(_OWN_KIND):
                    made[name] = self._own_kind(schema, inner, (place, owner, name), depth + 1)
                else:
                    made[name] = self.value(field, inner, (place, owner, name), depth + 1)
        return made

    def _own_kind(self, schema: Schema, value: Any, place: Place, depth: int) -> Any:
        """Return what may be an object of the type in which it stands, or a list of such; other values as they are.

        Go reads these by code, which passes over unknown fields in silence.
        """
        known = dict(self.messages)
        if isinstance(value, dict):
            value = self._object(schema, value, place, depth)
        elif isinstance(value, list):
            value = [self.value(schema, inner or {}, place, depth + 1) for inner in value]
        self.messages = known
        return value

    def _map(self, schema: Schema, value: dict[str, Any], place: Place, depth: int) -> Any:
        element = schema.element or ANY
        return {
            key: _zero(element) if inner is None else self.value(element, inner, (place, None, key), depth + 1)
            for key, inner in value.items()
        }

    def _list(self, schema: Schema, value: list[Any], place: Place, depth: int) -> Any:
        element = schema.element or ANY
        return [
            _zero(element) if inner is None else self.value(element, inner, (place, None, index), depth + 1)
            for index, inner in enumerate(value)
        ]

    def _scalar(self, schema: Schema, value: Any, place: Place) -> Any:
        """Return a value that is no container as Go writes it again; refuse what stands where it does not belong."""
        if schema.format in _CODED:
            return coded(schema.format, value, place)
        if schema.format == "byte" and isinstance(value, str):
            if fault := base64_fault(value):
                return self._refuse(DecodeError(fault))
            return canonical_base64(value)
        if kind := _wrong_kind(schema, value):
            self._refuse(_mismatch(kind, place, go_type(schema, place)))
        return value

    def _refuse(self, error: DecodeError) -> None:
        # Go goes on after such a mismatch, since a value parsed by code may still fail and then comes first.
        if self.wrong is None:
            self.wrong = error


# The formats whose values Kubernetes parses by code.
_CODED = frozenset({"quantity", "date-time", "micro-time", "int-or-string"})


def coded(form: str, value: Any, place: Place) -> Any:
    """Return a quantity, time or int-or-string as Go writes it. Raises DecodeError."""
    if form == "quantity":
        try:
            return str(parse_json(value))
        except QuantityError as error:
            raise DecodeError(str(error)) from None
    if form == "int-or-string":
        if not isinstance(value, str) and not in_range(value, INT32):
            raise _mismatch(_kind_or_number(value), place, "int32")
        return value
    if not isinstance(value, str):
        raise _mismatch(json_kind(value), place, "string")
    if fault := time_fault(value, micro=form == "micro-time"):
        raise DecodeError(fault)
    return canonical_time(value, micro=form == "micro-time")


def _wrong_kind(schema: Schema, value: Any) -> str | None:
    """Return what Go calls a value that the schema's plain type cannot hold, or None where it can."""
    match schema.shape:
        case "string" if isinstance(value, str) and schema.format != "byte":
            return None
        case "boolean" if isinstance(value, bool):
            return None
        case "number" if json_kind(value) == "number":
            return None
        case "integer" if json_kind(value) == "number":
            fits = in_range(value, INT32 if schema.format == "int32" else INT64)
            return None if fits else _kind_or_number(value)
    return json_kind(value)


def _kind_or_number(value: Any) -> str:
    kind = json_kind(value)
    return f"number {value!r}" if kind == "number" else kind


def _mismatch(kind: str, place: Place, name: str) -> DecodeError:
    where = f"struct field {go_place(place)}" if place else "value"
    return DecodeError(f"json: cannot unmarshal {kind} into Go {where} of type {name}")


def _zero(schema: Schema) -> Any:
    """Return the zero value of an element, which is what Go makes of null in a list or a map."""
    match schema.shape:
        case "object":
            return {}
        case "string" if not schema.format:
            return ""
        case "string" if schema.format == "quantity":
            return "0"
        case "string" if schema.format == "int-or-string":
            return 0
        case "integer" | "number":
            return 0
        case "boolean":
            return False
    return None


def prune(schema: Schema, value: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a custom object without unknown fields, and the messages for them, sorted as Kubernetes has them.

    Values of a wrong shape stay as they are, for validation to name. The input is not changed. At most 100 messages.
    """
    paths: list[str] = []
    made = _pruned(schema, value, "", paths)
    return made, [unknown_field(path) for path in sorted(paths)]


def _pruned(schema: Schema, value: Any, path: str, paths: list[str]) -> Any:
    if isinstance(value, dict):
        if schema.shape == "map" and schema.element is not None:
            return {key: _pruned(schema.element, inner, _join(path, key), paths) for key, inner in value.items()}
        if schema.shape == "object":
            return _pruned_object(schema, value, path, paths)
    elif isinstance(value, list) and schema.shape == "list" and schema.element is not None:
        return [_pruned(schema.element, inner, f"{path}[{index}]", paths) for index, inner in enumerate(value)]
    return value


def _pruned_object(schema: Schema, value: dict[str, Any], path: str, paths: list[str]) -> dict[str, Any]:
    fields, made = schema.fields, {}
    for name, inner in value.items():
        field = fields.get(name)
        if field is not None:
            made[name] = _pruned(field, inner, _join(path, name), paths)
        elif schema.preserve_unknown:
            made[name] = inner
        elif len(paths) < MAX_REPORTED:
            paths.append(_join(path, name))
    return made


def has_duplicates(raw: bytes, decoded: Any) -> bool:
    """Whether JSON has an object with one key twice; `decoded` is what msgspec made of it, unchanged.

    Counts quotes, which are fewer when a pair got lost; escapes that hide a quote make the answer a careful yes.
    """
    if b"\\u0022" in raw:
        return True
    return raw.count(b'"') != msgspec.json.encode(decoded).count(b'"')


def duplicate_fields(raw: bytes) -> list[str]:
    """Return the messages for keys that stand twice in one object, in document order, whatever the schema.

    For objects without a Go type (custom resources). Raises ValueError for what is not JSON.
    """
    return strict_errors(ANY, raw)


def strict_errors(schema: Schema, raw: bytes) -> list[str]:
    """Return the messages for unknown and duplicate fields of JSON text in document order, at most 100, each once.

    As Go does, it looks for no duplicates inside unknown fields, nor inside opaque ones of a known type. Raises
    ValueError for what is not JSON, and RecursionError for nesting that Python's JSON decoder does not follow.
    """
    messages: dict[str, None] = {}
    found = json.loads(raw, object_pairs_hook=_Pairs)
    pending: list[str | _Place] = [(None if schema is ANY else schema, found, "")]
    while pending and len(messages) < MAX_REPORTED:
        step = pending.pop()
        if isinstance(step, str):
            messages[step] = None
            continue
        known, value, path = step
        if isinstance(value, _Pairs):
            pending.extend(reversed(_steps(known, value, path)))
        elif isinstance(value, list) and (known is None or known.shape == "list"):
            element = known.element if known else None
            pending.extend((element, value[at], f"{path}[{at}]") for at in range(len(value) - 1, -1, -1))
    return list(messages)


class _Pairs(tuple[tuple[str, Any], ...]):
    """An object's keys and values as they stand in the text."""

    __slots__ = ()


# What to look at next: its schema (None: whatever it is), the value and the path.
_Place = tuple[Schema | None, Any, str]


def _steps(known: Schema | None, pairs: _Pairs, path: str) -> list[str | _Place]:
    """Return what to look at inside an object: its messages and its containers, in order."""
    steps: list[str | _Place] = []
    seen: set[str] = set()
    if known is not None and known.shape not in {"object", "map"}:
        return steps
    for name, inner in pairs:
        here = _join(path, name)
        field = None
        if known is not None:
            field = known.element if known.shape == "map" else known.fields.get(name)
            if field is None:
                if not known.preserve_unknown:
                    steps.append(unknown_field(here))
                continue
        if name in seen:
            steps.append(f"duplicate field {quote(here)}")
        seen.add(name)
        if isinstance(inner, (_Pairs, list)):
            steps.append((field, inner, here))
    return steps


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
