"""Read messages as the objects that Go shows in JSON, by a plan that is made once for each message.

A plan has a reader for each tag, so that a field costs one look-up and one call. A reader takes the data, where the
value begins, where the message ends, the object to fill and what may still be spent, and gives where the value ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

from . import _envelope
from ._facts import Field, fields_of, message_of
from ._readers import Budget, Reader, binary, entries, packed, scalar, several, single, take_bytes, take_text, text
from ._values import REMEMBERED, VALUES, Value, read_json
from ._wire import ENDS_EARLY, LENGTH, VARINT, fields, read_tag, read_varint, skip
from .errors import ProtobufError, UnknownKind

__all__ = ["read_envelope", "read_kind"]

Take: TypeAlias = Callable[[bytes, int, int, Budget], Any]
"""Reads the content between two places as a value."""

_RAW: Final = "m.runtime.RawExtension"
_CHOICES: Final = {
    "e.apiextensions.v1.JSONSchemaPropsOrArray",
    "e.apiextensions.v1.JSONSchemaPropsOrBool",
    "e.apiextensions.v1.JSONSchemaPropsOrStringArray",
}
_SCHEMA: Final = "e.apiextensions.v1.JSONSchemaProps"


class Plan:
    """How to read one message: its readers by tag, and what is there before anything is read.

    `late` are structs that Go has always; they are made where none was sent.
    """

    __slots__ = ("empty", "late", "message", "names", "readers")

    def __init__(self, message: str) -> None:
        self.message = message
        self.readers: dict[int, Reader] = {}
        self.names: dict[int, str] = {}
        self.empty: dict[str, Any] = {}
        self.late: list[tuple[str, Callable[[], dict[str, Any]]]] = []

    def fresh(self) -> dict[str, Any]:
        """Make the object that an empty message stands for."""
        made = self.empty.copy()
        for name, make in self.late:
            made[name] = make()
        return made


def fill(plan: Plan, data: bytes, at: int, end: int, made: dict[str, Any], budget: Budget) -> None:
    """Read a message into an object. Raises ProtobufError."""
    budget.messages -= 1
    if budget.messages < 0:
        msg = "the data hold more objects than their size allows"
        raise ProtobufError(msg)
    readers = plan.readers
    try:
        while at < end:
            mark = data[at]
            at += 1
            if mark > 0x7F:
                mark, at = read_tag(data, at - 1)
            reader = readers.get(mark)
            at = reader(data, at, end, made, budget) if reader else _stranger(plan, data, at, end, mark)
    except IndexError:
        raise ProtobufError(ENDS_EARLY) from None
    if at != end:
        raise ProtobufError(ENDS_EARLY)
    for name, make in plan.late:
        if name not in made:
            made[name] = make()


def _stranger(plan: Plan, data: bytes, at: int, end: int, mark: int) -> int:
    if name := plan.names.get(mark >> 3):
        msg = f"was sent as wire type {mark & 7}, which is not the one of this field"
        raise ProtobufError(msg).within(name)
    return skip(data, at, end, mark)


@cache
def plan_of(message: str) -> Plan:
    """Make the plan of a message. Those of messages within are made when they are first read."""
    plan = Plan(message)
    for field in fields_of(message):
        if field.inline:
            _add_inline(plan, field)
        else:
            _add(plan, field)
            _prepare(plan, field)
    return plan


def _add_inline(plan: Plan, field: Field) -> None:
    inner = plan_of(field.word[1:])

    def read(data: bytes, at: int, stop: int, made: dict[str, Any], budget: Budget) -> None:
        fill(inner, data, at, stop, made, budget)

    plan.empty |= inner.empty
    plan.late += inner.late
    plan.names[field.number] = inner.message
    plan.readers[field.number << 3 | LENGTH] = single(read)


def _prepare(plan: Plan, field: Field) -> None:
    """Note what Go shows for the field where nothing was sent."""
    word, name = field.word, field.name
    if field.label or field.pointer:
        if field.shown:
            plan.empty[name] = None
    elif word in _ZEROS:
        if field.shown:
            plan.empty[name] = _ZEROS[word]
    elif word[1:] in VALUES or word[1:] == _RAW:
        if not field.omit_zero:
            plan.empty[name] = VALUES[word[1:]].empty if word[1:] in VALUES else None
    else:
        plan.late.append((name, lambda: plan_of(word[1:]).fresh()))


_ZEROS: Final[dict[str, Any]] = {"s": "", "y": None, "i32": 0, "i64": 0, "b": False, "d": 0}


def _add(plan: Plan, field: Field) -> None:
    """Add the readers of one field."""
    plan.names[field.number] = field.name
    wire, readers = field.number << 3, plan.readers
    always = field.pointer or field.shown
    if field.label == "{}":
        readers[wire | LENGTH] = entries(field.name, _take(field.word), _default(field.word))
    elif field.word in {"s", "y"} and not field.label:
        readers[wire | LENGTH] = (text if field.word == "s" else binary)(field.name, always)
    elif field.word in _ZEROS and field.word not in {"s", "y"}:
        readers[wire | (VARINT if field.word != "d" else 1)] = scalar(field.name, field.word, field.label, always)
        if field.label:
            readers[wire | LENGTH] = packed(field.name, field.word)
    elif field.label:
        readers[wire | LENGTH] = several(field.name, _take(field.word))
    elif _is_plain(field.word):
        readers[wire | LENGTH] = _part(field.name, field.word[1:])
    else:
        readers[wire | LENGTH] = _whole(field)


def _is_plain(word: str) -> bool:
    return word[1:] not in VALUES and word[1:] not in _CHOICES and word[1:] != _RAW


def _part(name: str, message: str) -> Reader:
    """Read a message within; what was sent in several parts is put together."""

    def read(data: bytes, at: int, stop: int, made: dict[str, Any], budget: Budget) -> None:
        plan = plan_of(message)
        inner = made.get(name)
        if inner is None:
            inner = made[name] = plan.empty.copy()
        budget.enter()
        try:
            fill(plan, data, at, stop, inner, budget)
        except ProtobufError as error:
            raise error.within(name) from None
        budget.depth += 1

    return single(read)


def _whole(field: Field) -> Reader:
    """Read a message that is one value."""
    name, take, omit = field.name, _take(field.word), field.omit_zero

    def read(data: bytes, at: int, stop: int, made: dict[str, Any], budget: Budget) -> None:
        try:
            made[name] = take(data, at, stop, budget)
        except ProtobufError as error:
            raise error.within(name) from None
        if omit and made[name] is None:
            del made[name]

    return single(read)


def _default(word: str) -> Callable[[], Any]:
    """Say what an entry of a map has where no value was sent."""
    if word in {"s", "y"}:
        return str
    if word[1:] in VALUES:
        return lambda: VALUES[word[1:]].read(b"")
    if word[1:] in _CHOICES:
        return lambda: _take(word)(b"", 0, 0, Budget(1))
    return lambda: plan_of(word[1:]).fresh()


def _take(word: str) -> Take:
    if word in {"s", "y"}:
        return take_text if word == "s" else take_bytes
    message = word[1:]
    if message == _RAW:
        return _take_raw
    if message in VALUES:
        return _take_value(VALUES[message])
    if message in _CHOICES:
        return _take_choice(message)

    def take(data: bytes, at: int, stop: int, budget: Budget) -> Any:
        plan = plan_of(message)
        made = plan.empty.copy()
        budget.enter()
        fill(plan, data, at, stop, made, budget)
        budget.depth += 1
        return made

    return take


def _take_value(value: Value) -> Take:
    read, memo = value.read, value.memo_read

    def take(data: bytes, at: int, stop: int, budget: Budget) -> Any:
        content = data[at:stop]
        return memo(content) if stop - at <= REMEMBERED else read(content)

    return take


def _take_choice(message: str) -> Take:
    """Read a message in which either a schema or something else is set."""
    kind = message.rpartition("Or")[2]
    schema = _take("@" + _SCHEMA)

    def take(data: bytes, at: int, stop: int, budget: Budget) -> Any:
        found: Any = None
        others: list[Any] = []
        allows = False
        for mark, start, last in fields(data, at, stop):
            if mark == (0x12 if kind == "Bool" else 0x0A):
                found = schema(data, start, last, budget)
            elif mark == 0x12:
                others.append(
                    schema(data, start, last, budget) if kind == "Array" else take_text(data, start, last, budget)
                )
            elif mark == 0x08 and kind == "Bool":
                allows = read_varint(data, start)[0] != 0
            elif mark >> 3 in {1, 2}:
                msg = f"field {mark >> 3} was sent as wire type {mark & 7}"
                raise ProtobufError(msg)
        if kind == "Bool":
            return allows if found is None else found
        return others or found

    return take


def _take_raw(data: bytes, at: int, stop: int, budget: Budget) -> Any:
    """Read an object of any kind, in JSON or in an envelope."""
    start = last = stop
    for mark, first, end in fields(data, at, stop):
        if mark >> 3 == 1:
            if mark & 7 != LENGTH:
                msg = f"field 1 was sent as wire type {mark & 7}"
                raise ProtobufError(msg)
            start, last = first, end
    if not data.startswith(_envelope.PREFIX, start, last):
        return read_json(data[start:last])
    budget.enter()
    made = read_envelope(data, start, last, budget)
    budget.depth += 1
    return made


def read_envelope(
    data: bytes, at: int, end: int, budget: Budget, default: tuple[str, str, str] = ("", "", "")
) -> dict[str, Any]:
    """Read an object in its envelope; `default` is what it is where it does not say so. Raises ProtobufError."""
    opened = _envelope.open_envelope(data, at, end)
    if opened.content_type == "application/json":
        return _read_json_object(data[opened.start : opened.end], opened, default)
    group, _, version = opened.api_version.rpartition("/")
    if not version:
        group, version = default[:2]
    kind = opened.kind or default[2]
    for called, value in (("kind", kind), ("version", version)):
        if not value:
            msg = f"the object does not say its {called}; set apiVersion and kind in its type"
            raise ProtobufError(msg)
    return read_kind(data, opened.start, opened.end, (group, version, kind), budget)


def _read_json_object(content: bytes, opened: _envelope.Envelope, default: tuple[str, str, str]) -> dict[str, Any]:
    made = read_json(content)
    if not isinstance(made, dict):
        msg = "the JSON within is no object"
        raise ProtobufError(msg)
    api_version = made.get("apiVersion") or opened.api_version or _envelope.version_text(*default[:2])
    kind = made.get("kind") or opened.kind or default[2]
    return {"apiVersion": api_version, "kind": kind} | {**made, "apiVersion": api_version, "kind": kind}


def read_kind(data: bytes, at: int, end: int, gvk: tuple[str, str, str], budget: Budget) -> dict[str, Any]:
    """Read an object of a kind without its envelope. Raises ProtobufError."""
    message = message_of(*gvk)
    if message is None:
        raise UnknownKind(*gvk)
    plan = plan_of(message)
    made: dict[str, Any] = {"apiVersion": _envelope.version_text(*gvk[:2]), "kind": gvk[2], **plan.empty}
    try:
        fill(plan, data, at, end, made, budget)
    except ProtobufError as error:
        raise error.within(gvk[2]) from None
    return made
