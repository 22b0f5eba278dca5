"""Formats of strings in schemas, as Kubernetes checks them (go-openapi's names and rules)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from pilothouse.apiserver.cel.formats import is_byte, is_date, is_date_time, is_uuid
from pilothouse.apiserver.cel.networks import uri_fault
from pilothouse.kinds import durations, names

__all__ = ["is_duration", "string_format"]

_HOST_LABEL = re.compile(r"[^\W_](?:[^\W_]|-)*", re.UNICODE)
_EMAIL = re.compile(r"(?:[^<>@\s\"(),:;\[\]\\]+|\"[^\"\\]*\")@[^<>@\s\"(),:;\\]+", re.UNICODE)
_NAMED_EMAIL = re.compile(r"[^<>@]*<([^<>]+)>\s*")
_UUIDS = {
    "uuid3": r"[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}",
    "uuid4": r"[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}",
    "uuid5": r"[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}",
}
_MAC = re.compile(
    r"(?:[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}(?:(?:[0-9a-f]{2}\1){2})?[0-9a-f]{2}"
    r"|[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\2){18}[0-9a-f]{2}"
    r"|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}|(?:[0-9a-f]{4}\.){3}[0-9a-f]{4}|(?:[0-9a-f]{4}\.){9}[0-9a-f]{4})",
    re.IGNORECASE | re.ASCII,
)
_CARD = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|6(?:011|5\d\d)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:2131|1800|35\d{3})\d{11}",
    re.ASCII,
)
_BYTE_VALUE = r"(?:0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])"
_RGB = re.compile(rf"rgb\(\s*{_BYTE_VALUE}\s*,\s*{_BYTE_VALUE}\s*,\s*{_BYTE_VALUE}\s*\)", re.ASCII)
_DURATION = re.compile(r"((?:-|\+)?\d+)\s*([A-Za-zµ]+)")
_UNITS = frozenset(
    [
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "us",
        "µs",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "m",
        "min",
        "mins",
        "minute",
        "minutes",
        "h",
        "hr",
        "hrs",
        "hour",
        "hours",
        "d",
        "day",
        "days",
        "w",
        "wk",
        "wks",
        "week",
        "weeks",
    ]
)


def _full(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE | re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def is_duration(text: str) -> bool:
    """Whether it is a duration: of Go (`1h30m`), or of Scala (`22 ns`, `3 days`)."""
    try:
        durations.parse(text)
    except durations.DurationError:
        parts = list(_DURATION.finditer(text))
        return bool(parts) and all(part[2].lower() in _UNITS for part in parts)
    return True


def _is_hostname(text: str) -> bool:
    if not text or len(text.encode()) > 255:
        return False
    labels = text.split(".")
    for label in labels:
        if len(label) > 63 or not _HOST_LABEL.fullmatch(label) or label.endswith("-"):
            return False
    return len(labels) == 1 or (len(labels[-1]) >= 2 and labels[-1].isalpha())


def _is_email(text: str) -> bool:
    match = _NAMED_EMAIL.fullmatch(text)
    return _EMAIL.fullmatch(match[1].strip() if match else text.strip()) is not None


def _without_zeros(text: str) -> str:
    """Leave out leading zeros of the parts of an IPv4 address, which count as decimal."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)


def _is_ipv4(text: str) -> bool:
    if ":" in text:
        return "." in text and _is_ipv6(text)
    try:
        ipaddress.IPv4Address(_without_zeros(text))
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        return ":" in text and ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def _is_cidr(text: str) -> bool:
    address, slash, bits = text.partition("/")
    if not slash or not (bits.isascii() and bits.isdigit()) or len(bits) > 3:
        return False
    try:
        ipaddress.ip_interface(f"{_without_zeros(address) if ':' not in address else address}/{int(bits)}")
    except ValueError:
        return False
    return True


def _is_isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"\d{9}[\dX]", digits, re.ASCII):
        return False
    total = sum((at + 1) * (10 if digit == "X" else int(digit)) for at, digit in enumerate(digits))
    return total % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"\d{13}", digits, re.ASCII):
        return False
    return sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits)) % 10 == 0


def _is_credit_card(text: str) -> bool:
    digits = re.sub(r"\D+", "", text, flags=re.ASCII)
    if not _CARD.fullmatch(digits):
        return False
    total = 0
    for at, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if at % 2 else 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


_CHECKS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _full(r"[0-9a-f]{24}"),
    "uri": lambda text: uri_fault(text) is None,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "cidr": _is_cidr,
    "mac": lambda text: _MAC.fullmatch(text) is not None,
    "uuid": is_uuid,
    **{name: _full(pattern) for name, pattern in _UUIDS.items()},
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "creditcard": _is_credit_card,
    "ssn": _full(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _full(r"#?(?:[0-9a-f]{3}|[0-9a-f]{6})"),
    "rgbcolor": lambda text: _RGB.fullmatch(text) is not None,
    "byte": is_byte,
    "password": lambda text: True,
    "date": is_date,
    "duration": is_duration,
    "datetime": is_date_time,
    "k8sshortname": lambda text: not names.short_name(text),
    "k8slongname": lambda text: not names.long_name(text),
}


def string_format(name: str) -> Callable[[str], bool] | None:
    """Return the check of a format, by its name with or without dashes; None for one that is not known."""
    return _CHECKS.get(name.replace("-", ""))
