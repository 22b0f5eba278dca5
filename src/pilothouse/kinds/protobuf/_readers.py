"""Readers of single fields: texts, numbers, lists, maps, and what has a length.

Each is made for one field. Those for what Go writes always drop what is empty where its JSON has no place for it.
"""

from __future__ import annotations

import math
import struct
from binascii import b2a_base64
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ._wire import AS_GO, ENDS_EARLY, bounded, read_tag, read_varint, skip
from .errors import ProtobufError

__all__ = [
    "DEPTH",
    "Budget",
    "Reader",
    "binary",
    "entries",
    "packed",
    "scalar",
    "several",
    "single",
    "take_bytes",
    "take_text",
    "text",
]

DEPTH: Final = 100
"""Messages within each other, as in Google's own implementations of protobuf."""
_FREE: Final = 4096
_BYTES_PER_MESSAGE: Final = 8
_LARGEST_WHOLE: Final = 1e21
"""Go writes larger floating-point numbers with an exponent."""


class Budget:
    """What the reading of one body may still spend: messages, and messages within each other."""

    __slots__ = ("depth", "messages")

    def __init__(self, length: int) -> None:
        self.depth = DEPTH
        self.messages = _FREE + length // _BYTES_PER_MESSAGE

    def enter(self) -> None:
        """Go one message deeper; the caller adds one to `depth` when it is out. Raises ProtobufError."""
        self.depth -= 1
        if self.depth < 0:
            msg = f"more than {DEPTH} messages lie within each other"
            raise ProtobufError(msg)


Reader: TypeAlias = Callable[[bytes, int, int, dict[str, Any], Budget], int]
_Read: TypeAlias = Callable[[bytes, int, int, dict[str, Any], Budget], None]
_Take: TypeAlias = Callable[[bytes, int, int, Budget], Any]


def take_text(data: bytes, at: int, stop: int, budget: Budget) -> str:
    """Read a text as Go shows it in JSON: what is no UTF-8 is replaced."""
    return data[at:stop].decode("utf-8", AS_GO)


def take_bytes(data: bytes, at: int, stop: int, budget: Budget) -> str:
    """Read bytes as JSON has them, in base64."""
    return b2a_base64(data[at:stop], newline=False).decode("ascii")


def text(name: str, always: bool) -> Reader:
    """Read a text."""

    def read(data: bytes, at: int, end: int, made: dict[str, Any], budget: Budget) -> int:
        length = data[at]
        at += 1
        if length > 0x7F:
            length, at = read_varint(data, at - 1)
        stop = at + length
        if stop > end:
            raise ProtobufError(ENDS_EARLY).within(name)
        if length or always:
            made[name] = data[at:stop].decode("utf-8", AS_GO)
        else:
            made.pop(name, None)
        return stop

    return read


def binary(name: str, always: bool) -> Reader:
    """Read bytes."""

    def read(data: bytes, at: int, stop: int, made: dict[str, Any], budget: Budget) -> None:
        if stop > at or always:
            made[name] = take_bytes(data, at, stop, budget)
        else:
            made.pop(name, None)

    return single(read)


def _integer(half: int) -> Callable[[int], int]:
    def convert(value: int) -> int:
        value &= 2 * half - 1
        return value - 2 * half if value >= half else value

    return convert


def _double(bits: int) -> float:
    value: float = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
    if not math.isfinite(value):
        msg = f"{value} has no place in JSON"
        raise ProtobufError(msg)
    return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value


_CONVERT: Final[dict[str, Callable[[int], Any]]] = {
    "b": bool,
    "i32": _integer(2**31),
    "i64": _integer(2**63),
    "d": _double,
}


def _number(word: str) -> Callable[[bytes, int, int], tuple[int, int]]:
    if word != "d":
        return lambda data, at, _: read_varint(data, at)
    return lambda data, at, end: (int.from_bytes(data[at : bounded(at, 8, end)], "little"), at + 8)


def scalar(name: str, word: str, label: str, always: bool) -> Reader:
    """Read a number or a boolean, or with the label `[]` the next one of a list."""
    convert, number = _CONVERT[word], _number(word)
    is_double, is_boolean = word == "d", word == "b"

    def read(data: bytes, at: int, end: int, made: dict[str, Any], budget: Budget) -> int:
        value: Any = data[at]
        if value > 0x7F or is_double:
            value, at = number(data, at, end)
            value = convert(value)
        else:
            at += 1
            if is_boolean:
                value = value != 0
        if value or always:
            made[name] = value
        else:
            made.pop(name, None)
        return at

    def read_next(data: bytes, at: int, end: int, made: dict[str, Any], budget: Budget) -> int:
        value, at = number(data, at, end)
        _append(made, name, convert(value))
        return at

    return read_next if label else read


def _append(made: dict[str, Any], name: str, value: Any) -> None:
    if (found := made.get(name)) is None:
        made[name] = [value]
    else:
        found.append(value)


def packed(name: str, word: str) -> Reader:
    """Read many numbers that were sent as one field."""
    convert, number = _CONVERT[word], _number(word)

    def read(data: bytes, at: int, stop: int, made: dict[str, Any], budget: Budget) -> None:
        while at < stop:
            value, at = number(data, at, stop)
            if at > stop:
                raise ProtobufError(ENDS_EARLY).within(name)
            _append(made, name, convert(value))

    return single(read)


def single(read: _Read) -> Reader:
    """Read the length of a field, then its content."""

    def outer(data: bytes, at: int, end: int, made: dict[str, Any], budget: Budget) -> int:
        length = data[at]
        at += 1
        if length > 0x7F:
            length, at = read_varint(data, at - 1)
        stop = at + length
        if stop > end:
            raise ProtobufError(ENDS_EARLY)
        read(data, at, stop, made, budget)
        return stop

    return outer


def several(name: str, take: _Take) -> Reader:
    """Read the next element of a list."""

    def read(data: bytes, at: int, end: int, made: dict[str, Any], budget: Budget) -> int:
        length = data[at]
        at += 1
        if length > 0x7F:
            length, at = read_varint(data, at - 1)
        stop = at + length
        found = made.get(name)
        if found is None:
            found = made[name] = []
        if stop > end:
            raise ProtobufError(ENDS_EARLY).within(f"{name}[{len(found)}]")
        try:
            found.append(take(data, at, stop, budget))
        except ProtobufError as error:
            raise error.within(f"{name}[{len(found)}]") from None
        return stop

    return read


def entries(name: str, take: _Take, default: Callable[[], Any]) -> Reader:
    """Read the next entry of a map: a small message with the key as field 1 and the value as field 2."""

    def read(data: bytes, at: int, stop: int, made: dict[str, Any], budget: Budget) -> None:
        key, value, is_set = "", None, False
        while at < stop:
            mark = data[at]
            at += 1
            if mark not in {0x0A, 0x12}:
                at = _other(data, at, stop, mark)
                continue
            length = data[at]
            at += 1
            if length > 0x7F:
                length, at = read_varint(data, at - 1)
            if at + length > stop:
                raise ProtobufError(ENDS_EARLY).within(name)
            if mark == 0x0A:
                key = data[at : at + length].decode("utf-8", AS_GO)
            else:
                value, is_set = _value_of(name, key, take, data, at, at + length, budget), True
            at += length
        if at != stop:
            raise ProtobufError(ENDS_EARLY).within(name)
        found = made.get(name)
        if found is None:
            found = made[name] = {}
        found[key] = value if is_set else default()

    return single(read)


def _value_of(name: str, key: str, take: _Take, data: bytes, at: int, stop: int, budget: Budget) -> Any:
    try:
        return take(data, at, stop, budget)
    except ProtobufError as error:
        raise error.within(f"{name}[{key[:64]}]") from None


def _other(data: bytes, at: int, stop: int, mark: int) -> int:
    if mark > 0x7F:
        mark, at = read_tag(data, at - 1)
    return skip(data, at, stop, mark)
