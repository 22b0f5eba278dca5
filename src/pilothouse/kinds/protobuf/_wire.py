"""The wire format of protobuf: numbers of variable length, and fields that are passed over.

Follows https://protobuf.dev/programming-guides/encoding/ and is as strict as the code that Kubernetes generates.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final

from .errors import ProtobufError

__all__ = [
    "AS_GO",
    "ENDS_EARLY",
    "LENGTH",
    "SIZES",
    "VARINT",
    "bounded",
    "field",
    "fields",
    "read_tag",
    "read_varint",
    "size",
    "skip",
    "tag",
    "varint",
]

VARINT: Final = 0
LENGTH: Final = 2
_FIXED64: Final = 1
_GROUP: Final = 3
_END_GROUP: Final = 4
_FIXED32: Final = 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_TAG_MASK: Final = (1 << 35) - 1
_FIRST_TAG: Final = 8
_LAST_TAG: Final = (1 << 34) - 1
_MASK: Final = (1 << 64) - 1
_LONGEST: Final = 10
"""Bytes of the longest number."""
_MANY: Final = 2048

AS_GO: Final = "pilothouse-as-go"
"""The name of how texts that are no UTF-8 are read: each byte that is none becomes U+FFFD, as in Go's JSON."""
codecs.register_error(AS_GO, lambda error: ("\ufffd" * (error.end - error.start), error.end))  # type: ignore[attr-defined]

ENDS_EARLY: Final = "the data end within a field"


def varint(value: int) -> bytes:
    """Write a number, a negative one as Go does: as if it were one of 64 bits without a sign."""
    value &= _MASK
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


SIZES: Final = tuple(map(varint, range(_MANY)))
"""The small numbers as they are written."""


def size(length: int) -> bytes:
    """Write a length."""
    return SIZES[length] if length < _MANY else varint(length)


def tag(number: int, wire: int) -> bytes:
    """Write what comes before the value of a field."""
    return varint(number << 3 | wire)


def field(number: int, content: bytes) -> bytes:
    """Write a field that has a length: a text, bytes or a message."""
    return tag(number, LENGTH) + size(len(content)) + content


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of 64 bits without a sign, and give where the next thing begins.

    Raises IndexError where the data end, ProtobufError where the number has more than ten bytes.
    """
    value = shift = 0
    for _ in range(_LONGEST):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
    msg = "a number takes more than ten bytes"
    raise ProtobufError(msg)


def read_tag(data: bytes, at: int) -> tuple[int, int]:
    """Read a tag: like Go, only the low 32 bits of the number of the field. Raises as `read_varint` does."""
    mark, at = read_varint(data, at)
    return mark & _TAG_MASK, at


def bounded(at: int, length: int, end: int) -> int:
    """Give where something of `length` bytes ends. Raises ProtobufError where that is past the end."""
    stop = at + length
    if stop > end:
        raise ProtobufError(ENDS_EARLY)
    return stop


def skip(data: bytes, at: int, end: int, mark: int) -> int:
    """Pass over the value of a field whose tag is `mark`. Raises IndexError, ProtobufError."""
    depth = 0
    while True:
        wire = mark & 7
        # within a group Go does not look at the numbers of fields
        if wire > _FIXED32 or not (depth or _FIRST_TAG <= mark <= _LAST_TAG):
            msg = f"tag {mark} at byte {at} is of no field"
            raise ProtobufError(msg)
        if wire == VARINT:
            _, at = read_varint(data, at)
        elif wire == LENGTH:
            length, at = read_varint(data, at)
            at = bounded(at, length, end)
        elif wire in _WIDTHS:
            at = bounded(at, _WIDTHS[wire], end)
        else:
            depth += 1 if wire == _GROUP else -1
            if depth < 0:
                msg = f"a group ends at byte {at} that never began"
                raise ProtobufError(msg)
        if not depth:
            return at
        if at >= end:
            raise ProtobufError(ENDS_EARLY)
        mark, at = read_varint(data, at)


def fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give the tag of each field, and where its value begins and ends; of texts, bytes and messages the content.

    For small messages that are not worth a plan. Raises ProtobufError.
    """
    try:
        while at < end:
            mark, at = read_tag(data, at)
            if mark & 7 == LENGTH and _FIRST_TAG <= mark <= _LAST_TAG:
                length, at = read_varint(data, at)
                stop = bounded(at, length, end)
            else:
                stop = skip(data, at, end, mark)
            yield mark, at, stop
            at = stop
    except IndexError:
        raise ProtobufError(ENDS_EARLY) from None
    if at != end:
        raise ProtobufError(ENDS_EARLY)
