"""Write objects as messages, byte for byte as Go does, by a plan that is made once for each message.

Go writes fields by their numbers: structs, texts, numbers and booleans always, and pointers, lists and maps where there
is something in them. A plan has all that is always written ready, and a writer for each field of the object.
"""

from __future__ import annotations

import binascii
import struct
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from ._facts import Field, fields_of
from ._values import REMEMBERED, VALUES, Value
from ._wire import LENGTH, SIZES, VARINT, size, tag, varint
from ._wire import field as field_bytes
from .errors import ProtobufError

__all__ = ["message_bytes"]

Writer: TypeAlias = Callable[[Any], bytes]

_RAW: Final = "m.runtime.RawExtension"
_VERBS: Final = "@m.apis.meta.v1.Verbs"
"""A message in protobuf that is a list in Go, and like a list left out where there is none."""
_SCHEMA: Final = "e.apiextensions.v1.JSONSchemaProps"
_CHOICES: Final = {
    "e.apiextensions.v1.JSONSchemaPropsOrArray",
    "e.apiextensions.v1.JSONSchemaPropsOrBool",
    "e.apiextensions.v1.JSONSchemaPropsOrStringArray",
}
_FAULTS: Final = (AttributeError, TypeError, ValueError, KeyError, struct.error, OverflowError)
_JSON_NAMES: Final = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
}
_LIMITS: Final = {"i32": range(-(2**31), 2**31), "i64": range(-(2**63), 2**63)}


class Plan:
    """How to write one message: what is always written, in its place, and a place and writer for each field.

    `inline` are messages whose fields stand in the object itself.
    """

    __slots__ = ("inline", "parts", "slots")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.slots: dict[str, tuple[int, Writer]] = {}
        self.inline: list[tuple[int, bytes, Plan]] = []


def content(plan: Plan, value: Mapping[str, Any]) -> bytes:
    """Write an object without a tag. Raises ProtobufError."""
    parts, slots = plan.parts.copy(), plan.slots
    key = ""
    try:
        for key, item in value.items():
            slot = slots.get(key)
            if slot is not None and item is not None:
                parts[slot[0]] = slot[1](item)
    except ProtobufError as error:
        raise error.within(key) from None
    except _FAULTS as error:
        raise _fault(error, value[key] if key else value).within(key) from None
    for index, mark, inner in plan.inline:
        raw = content(inner, value)
        parts[index] = mark + size(len(raw)) + raw
    return b"".join(parts)


def _fault(error: Exception, value: Any) -> ProtobufError:
    """Say why a value cannot be written, but not the value, which may be secret."""
    if isinstance(error, ValueError):
        return ProtobufError(f"cannot be written: {error}")
    return ProtobufError(f"cannot be written: {_JSON_NAMES.get(type(value), 'this')} is not what the field holds")


@cache
def plan_of(message: str) -> Plan:
    """Make the plan of a message. Those of messages behind pointers, lists and maps are made when first written."""
    plan = Plan()
    for index, field in enumerate(fields_of(message)):
        if field.inline:
            inner = plan_of(field.word[1:])
            plan.parts.append(b"")
            plan.inline.append((index, tag(field.number, LENGTH), inner))
        else:
            plan.parts.append(_nothing(field))
            plan.slots[field.name] = (index, _writer(field))
    return plan


def _nothing(field: Field) -> bytes:
    """Say what Go writes of a field that is not in the object."""
    if field.label or field.pointer or field.word in {"y", _VERBS}:
        return b""
    if field.word in {"i32", "i64", "b"}:
        return tag(field.number, VARINT) + b"\0"
    if field.word == "d":
        return tag(field.number, 1) + bytes(8)
    return field_bytes(field.number, _zero(field.word))


def _zero(word: str) -> bytes:
    """Say what the content of an empty text, value or struct is."""
    if word in {"s", "y"} or word[1:] == _RAW:
        return b""
    if word[1:] in VALUES:
        value = VALUES[word[1:]]
        return b"" if value.empty is None else value.write(value.empty)
    if word[1:] in _CHOICES:
        return b"\x08\0" if word.endswith("Bool") else b""
    return content(plan_of(word[1:]), {})


def _writer(field: Field) -> Writer:
    mark = tag(field.number, LENGTH)
    if field.word in {"i32", "i64", "b", "d"}:
        return _numbers(field) if field.label else _number(field)
    if field.label == "{}":
        return _entries(mark, field.word)
    if field.label == "[]":
        return _several(mark, field.word)
    if field.word == "s":
        return _text(mark)
    return _single(mark, _content(field.word))


def _text(mark: bytes) -> Writer:
    def write(value: str) -> bytes:
        raw = value.encode()
        return mark + size(len(raw)) + raw

    return write


def _single(mark: bytes, inner: Writer) -> Writer:
    def write(value: Any) -> bytes:
        raw = inner(value)
        return mark + size(len(raw)) + raw

    return write


def _number(field: Field) -> Writer:
    if field.word == "d":
        mark = tag(field.number, 1)
        return lambda value: mark + struct.pack("<d", value)
    mark = tag(field.number, VARINT)
    if field.word == "b":
        both = {False: mark + b"\0", True: mark + b"\1"}
        return lambda value: both[value]
    convert = _converter(field.word)
    return lambda value: mark + convert(value)


def _converter(word: str) -> Callable[[int], bytes]:
    limits, many = _LIMITS.get(word, range(2)), len(SIZES)

    def convert(value: int) -> bytes:
        if 0 <= value < many:
            return SIZES[value]
        if value not in limits:
            msg = f"{value} is no whole number of this field's size"
            raise ProtobufError(msg)
        return varint(value)

    return convert


def _numbers(field: Field) -> Writer:
    mark, convert = tag(field.number, VARINT), _converter(field.word)
    return lambda value: b"".join(mark + convert(one or 0) for one in value)


def _several(mark: bytes, word: str) -> Writer:
    inner, nothing = _content(word), _zero_of(word)

    def write(value: Iterable[Any]) -> bytes:
        pieces: list[bytes] = []
        number, one = 0, value
        if not isinstance(value, list | tuple):
            raise TypeError
        try:
            for number, one in enumerate(value):  # noqa: B007 - the error names it
                raw = inner(one) if one is not None else nothing()
                pieces += (mark, size(len(raw)), raw)
        except ProtobufError as error:
            raise error.within(f"[{number}]") from None
        except _FAULTS as error:
            raise _fault(error, one).within(f"[{number}]" if one is not value else "") from None
        return b"".join(pieces)

    return write


def _entries(mark: bytes, word: str) -> Writer:
    inner, nothing = _content(word), _zero_of(word)

    def write(value: Mapping[str, Any]) -> bytes:
        pieces: list[bytes] = []
        key, item = "", value
        try:
            for key in sorted(value):
                item = value[key]
                raw = key.encode()
                second = inner(item) if item is not None else nothing()
                entry = b"".join((b"\x0a", size(len(raw)), raw, b"\x12", size(len(second)), second))
                pieces += (mark, size(len(entry)), entry)
        except ProtobufError as error:
            raise error.within(f"[{key[:64]}]") from None
        except _FAULTS as error:
            raise _fault(error, item).within(f"[{key[:64]}]" if item is not value else "") from None
        return b"".join(pieces)

    return write


def _zero_of(word: str) -> Callable[[], bytes]:
    """Write what Go has for null in a list or map; only made where it is met, since types may hold themselves."""
    return lambda: _zero(word)


def _content(word: str) -> Writer:
    """Say how an element is written without tag and length."""
    if word == "s":
        return str.encode
    if word == "y":
        return _decode_base64
    message = word[1:]
    if message == _RAW:
        return VALUES["e.apiextensions.v1.JSON"].write
    if message in VALUES:
        return _remembering(VALUES[message])
    if message in _CHOICES:
        return _choice(message.rpartition("Or")[2])
    return lambda value: content(plan_of(message), value)


def _decode_base64(value: str) -> bytes:
    try:
        return a2b_base64(value, strict_mode=True)
    except binascii.Error:
        # Go passes over line breaks
        return a2b_base64(value.replace("\n", "").replace("\r", ""), strict_mode=True)


def _remembering(value: Value) -> Writer:
    plain, memo = value.write, value.memo_write
    if plain is memo:
        return plain
    return lambda given: memo(given) if type(given) is not str or len(given) <= REMEMBERED else plain(given)


def _choice(kind: str) -> Writer:
    """Write a schema, or what may stand in its place: a boolean, a list of schemas or of texts."""

    def schema(value: Mapping[str, Any]) -> bytes:
        return content(plan_of(_SCHEMA), value)

    def write_boolean(value: Any) -> bytes:
        if isinstance(value, bool):
            return b"\x08" + SIZES[value]
        return b"\x08\1" + field_bytes(2, schema(value))

    def write_list(value: Any) -> bytes:
        if not isinstance(value, list):
            return field_bytes(1, schema(value))
        inner = schema if kind == "Array" else str.encode
        return b"".join(field_bytes(2, inner(one)) for one in value)

    return write_boolean if kind == "Bool" else write_list


def message_bytes(message: str, value: Mapping[str, Any], kind: str) -> bytes:
    """Write an object as the message with this short name. Raises ProtobufError, which names the kind and field."""
    try:
        return content(plan_of(message), value)
    except RecursionError:
        msg = "too many objects lie within each other"
        raise ProtobufError(msg).within(kind) from None
    except ProtobufError as error:
        raise error.within(kind) from None
