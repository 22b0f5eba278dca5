"""Messages that are one value in JSON: amounts, moments, durations, numbers or texts, and lists that may be null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from pilothouse.kinds import durations, quantity, times

from ._wire import AS_GO, LENGTH, VARINT, field, fields, read_varint, tag, varint
from .errors import ProtobufError

__all__ = ["REMEMBERED", "VALUES", "Value", "read_json", "text_of"]

REMEMBERED: Final = 64
"""Bytes or characters of the longest value remembered, so that hostile ones do not fill memory."""
_MEMO: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO_SECONDS: Final = -62135596800
"""The first moment of year 1, which Go has for none."""
_MICRO: Final = 1000
_INT32: Final = 2**31
_INT64: Final = 2**63


@dataclass(frozen=True, slots=True)
class Value:
    """How the content of a message is read and written, and the value where there is none.

    `memo_read` and `memo_write` remember what they gave; they are for short content and texts, and where values can
    change they are the plain ones.
    """

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    empty: Any
    memo_read: Callable[[bytes], Any]
    memo_write: Callable[[Any], bytes]


def _value(read: Callable[[bytes], Any], write: Callable[[Any], bytes], empty: Any, *, memo: bool = True) -> Value:
    if not memo:
        return Value(read, write, empty, read, write)
    return Value(read, write, empty, lru_cache(_MEMO)(read), lru_cache(_MEMO, typed=True)(write))


def text_of(content: bytes) -> str:
    """Read a text as Go shows it in JSON: what is no UTF-8 is replaced."""
    return content.decode("utf-8", AS_GO)


def read_json(content: bytes) -> Any:
    """Read JSON within a message, none where there is nothing. Raises ProtobufError."""
    if not content:
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the JSON within is not valid: {error}"
        raise ProtobufError(msg) from None


def _numbers(content: bytes, wanted: dict[int, int]) -> dict[int, int]:
    """Read the numbers of a small message; `wanted` has those that may be there with their values if they are not."""
    for mark, at, _ in fields(content, 0, len(content)):
        if mark >> 3 in wanted:
            if mark & 7 != VARINT:
                msg = f"field {mark >> 3} is a number and was sent as wire type {mark & 7}"
                raise ProtobufError(msg)
            wanted[mark >> 3] = read_varint(content, at)[0]
    return wanted


def _contents(content: bytes, number: int) -> list[bytes]:
    """Read the contents of one field of a small message, all that were sent."""
    found = []
    for mark, at, stop in fields(content, 0, len(content)):
        if mark >> 3 == number:
            if mark & 7 != LENGTH:
                msg = f"field {number} has a length and was sent as wire type {mark & 7}"
                raise ProtobufError(msg)
            found.append(content[at:stop])
    return found


def _signed(value: int, half: int) -> int:
    """Give what Go keeps of a number in a type of which `half` is the first number too large."""
    value &= 2 * half - 1
    return value - 2 * half if value >= half else value


def _moment(seconds: int, nanoseconds: int = 0) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // _MICRO)
    except OverflowError:
        msg = f"{seconds} seconds from 1970 are not within the years 1 to 9999"
        raise ProtobufError(msg) from None


def _timestamp(content: bytes) -> tuple[int, int]:
    found = _numbers(content, {1: 0, 2: 0})
    return _signed(found[1], _INT64), _signed(found[2], _INT32)


def _read_time(content: bytes) -> str | None:
    if not content:
        return None
    seconds, _ = _timestamp(content)
    return None if seconds == _ZERO_SECONDS else times.format_seconds(_moment(seconds))


def _read_micro_time(content: bytes) -> str | None:
    if not content:
        return None
    seconds, nanoseconds = _timestamp(content)
    # Go drops what is beyond microseconds towards zero
    whole = abs(nanoseconds) // _MICRO * _MICRO
    moment = _moment(seconds, whole if nanoseconds > 0 else -whole)
    return times.format_micros(moment) if moment.replace(tzinfo=None) != datetime.min else None  # noqa: DTZ901


def _write_moment(moment: datetime, nanoseconds: int) -> bytes:
    since = moment - _EPOCH
    seconds = since.days * 86400 + since.seconds
    if seconds == _ZERO_SECONDS and not moment.microsecond:
        return b""
    return tag(1, VARINT) + varint(seconds) + tag(2, VARINT) + varint(nanoseconds)


def _write_time(value: str) -> bytes:
    return _write_moment(times.parse(value), 0)


def _write_micro_time(value: str) -> bytes:
    moment = times.parse_micros(value)
    return _write_moment(moment, moment.microsecond * _MICRO)


def _read_quantity(content: bytes) -> str:
    found = _contents(content, 1)
    try:
        texts = [quantity.canonical(text_of(one)) for one in found]
    except quantity.QuantityError as error:
        raise ProtobufError(str(error)) from None
    return texts[-1] if texts else "0"


def _write_quantity(value: Any) -> bytes:
    return field(1, str(quantity.parse_json(value)).encode())


def _read_duration(content: bytes) -> str:
    return durations.format_duration(_signed(_numbers(content, {1: 0})[1], _INT64))


def _write_duration(value: str) -> bytes:
    return tag(1, VARINT) + varint(durations.parse(value))


def _read_int_or_string(content: bytes) -> int | str:
    kind, number, text = 0, 0, b""
    for mark, at, stop in fields(content, 0, len(content)):
        if mark == 0x08:
            kind = read_varint(content, at)[0]
        elif mark == 0x10:
            number = _signed(read_varint(content, at)[0], _INT32)
        elif mark == 0x1A:
            text = content[at:stop]
        elif mark >> 3 in {1, 2, 3}:
            msg = f"field {mark >> 3} was sent as wire type {mark & 7}"
            raise ProtobufError(msg)
    if kind > 1:
        msg = f"{kind} is neither 0 for a number nor 1 for a text"
        raise ProtobufError(msg)
    return text_of(text) if kind else number


def _write_int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + field(3, value.encode())
    if not -_INT32 <= value < _INT32:
        msg = f"{value} does not fit into 32 bits"
        raise ProtobufError(msg)
    return b"\x08\x00\x10" + varint(value) + b"\x1a\x00"


def _read_raw(content: bytes) -> Any:
    found = _contents(content, 1)
    return read_json(found[-1]) if found else None


def _write_raw(value: Any) -> bytes:
    # As Go's clients wrote it: controllers compare these bytes with those that they would write.
    text = msgspec.json.encode(value)
    if any(sign in text for sign in _ESCAPED):
        for sign, escaped in _ESCAPED.items():
            text = text.replace(sign, escaped)
    return field(1, text)


def _read_list(content: bytes) -> list[str]:
    return [text_of(one) for one in _contents(content, 1)]


def _write_list(value: list[str]) -> bytes:
    return b"".join(field(1, one.encode()) for one in value)


_ESCAPED: Final = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}
"""What Go's encoder of JSON writes otherwise than ours."""

_JSON: Final = _value(_read_raw, _write_raw, None, memo=False)
_LIST: Final = _value(_read_list, _write_list, None, memo=False)

VALUES: Final[dict[str, Value]] = {
    "a.authentication.v1.ExtraValue": _LIST,
    "a.authorization.v1.ExtraValue": _LIST,
    "a.certificates.v1.ExtraValue": _LIST,
    "e.apiextensions.v1.JSON": _JSON,
    "m.api.resource.Quantity": _value(_read_quantity, _write_quantity, "0"),
    "m.apis.meta.v1.Duration": _value(_read_duration, _write_duration, "0s"),
    "m.apis.meta.v1.FieldsV1": _JSON,
    "m.apis.meta.v1.MicroTime": _value(_read_micro_time, _write_micro_time, None),
    "m.apis.meta.v1.Time": _value(_read_time, _write_time, None),
    "m.apis.meta.v1.Verbs": _LIST,
    "m.util.intstr.IntOrString": _value(_read_int_or_string, _write_int_or_string, 0),
}
"""By the short name of the message."""
