"""What Go's decoder says of scalars that Kubernetes decodes by code, and how Go writes them again: times and bytes.

Each checker returns None or the complaint.
"""

from __future__ import annotations

import base64
import calendar
import re
from datetime import UTC, datetime

__all__ = [
    "INT32",
    "INT64",
    "base64_fault",
    "canonical_base64",
    "canonical_time",
    "in_range",
    "json_kind",
    "quote",
    "time_fault",
]

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)

_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_PAD = ord("=")

_SECONDS = "2006-01-02T15:04:05Z07:00"
_MICROS = "2006-01-02T15:04:05.000000Z07:00"
_STEPS = re.compile(r"2006|01|02|15|04|05|\.000000|Z07:00|[-T:]")
_RANGES = {"01": ("month", 1, 12), "15": ("hour", 0, 23), "04": ("minute", 0, 59), "05": ("second", 0, 59)}
_ZONE = re.compile(r"[+-]([0-9]{2}):([0-9]{2})")
_FRACTION = re.compile(r"[.,][0-9]+")


def json_kind(value: object) -> str:
    """Return what Go calls the kind of a decoded JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


def in_range(value: object, bounds: tuple[int, int]) -> bool:
    """Whether a value is an integer within bounds (both included); booleans are not integers."""
    return type(value) is int and bounds[0] <= value <= bounds[1]


def base64_fault(value: str) -> str | None:
    """Check standard base64 with padding; line ends are skipped."""
    try:
        canonical_base64(value)
    except ValueError:
        return f"illegal base64 data at input byte {_bad_byte(value.encode())}"
    return None


def canonical_base64(value: str) -> str:
    """Return base64 as Go writes the bytes that it read: without line ends. Raises ValueError."""
    plain = value.replace("\n", "").replace("\r", "")
    return base64.b64encode(base64.b64decode(plain, validate=True)).decode()


def canonical_time(text: str, *, micro: bool) -> str:
    """Return a time without a fault as Go writes it: in UTC, in whole seconds or with six digits of them."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        # The years around 0 and 10000, which Python does not have.
        return text
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds" if micro else "seconds") + "Z"


def _bad_byte(data: bytes) -> int:
    """Return the offset at which Go's decoder stops: the first byte that cannot be, or the start of an open quantum."""
    held = 0
    for at, byte in enumerate(data):
        if byte in b"\r\n":
            continue
        if byte in _ALPHABET:
            held = (held + 1) % 4
            continue
        if byte != _PAD or held < 2:
            return at
        rest = data[at + 1 :]
        after = at + 1 + len(rest) - len(rest.lstrip(b"\r\n"))
        if held == 3 or after == len(data):
            return after
        if data[after] != _PAD:
            return after - 1
        rest = data[after + 1 :]
        return after + 1 + len(rest) - len(rest.lstrip(b"\r\n"))
    return len(data) - held


def time_fault(text: str, *, micro: bool) -> str | None:
    """Check an RFC 3339 time as Go's `time.Parse` does, in seconds or with exactly six digits of them."""
    layout = _MICROS if micro else _SECONDS
    start = f"parsing time {_quote_bytes(text)}"
    rest, year, month, late = text, 0, 0, None
    for step in _STEPS.findall(layout):
        taken = _take(step, rest)
        if taken is None:
            return f'{start} as "{layout}": cannot parse {_quote_bytes(rest)} as "{step}"'
        number, rest = int(rest[:taken]) if step.isdigit() else 0, rest[taken:]
        if step in _RANGES and not _RANGES[step][1] <= number <= _RANGES[step][2]:
            return f"{start}: {_RANGES[step][0]} out of range"
        if step == "2006":
            year = number
        elif step == "01":
            month = number
        elif step == "02" and not 1 <= number <= _days(year, month):
            late = f"{start}: day out of range"
        elif step == "05" and not micro and (fraction := _FRACTION.match(rest)):
            rest = rest[fraction.end() :]
    if rest:
        return f"{start}: extra text: {_quote_bytes(rest)}"
    return late


def _take(step: str, rest: str) -> int | None:
    """Return how many characters of `rest` a step of the layout takes, or None where it does not fit."""
    if step == "Z07:00":
        if rest.startswith("Z"):
            return 1
        zone = _ZONE.match(rest)
        return 6 if zone and int(zone[1]) <= 24 and int(zone[2]) < 60 else None
    if step == ".000000":
        return 7 if re.match(r"\.[0-9]{6}", rest) else None
    if step.isdigit():
        digits = rest[: len(step)]
        return len(step) if len(digits) == len(step) and digits.isascii() and digits.isdigit() else None
    return 1 if rest.startswith(step) else None


def _days(year: int, month: int) -> int:
    return calendar.monthrange(year or 4, month)[1]


def _quote_bytes(text: str) -> str:
    """Quote as Go's time package does: control and non-ASCII bytes by number."""
    made = []
    for byte in text.encode():
        if byte < 0x20 or byte >= 0x80:
            made.append(f"\\x{byte:02x}")
        else:
            made.append(("\\" if byte in b'"\\' else "") + chr(byte))
    return f'"{"".join(made)}"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES["\v"] = "\\v"


def quote(text: str) -> str:
    """Quote as Go's `%q` does: what does not print is escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(char) or _printed(char) for char in text) + '"'


def _printed(char: str) -> str:
    code = ord(char)
    if char.isprintable():
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
