"""Named formats in expressions: `format.dns1123Label().validate(text)`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.networks import uri_fault
from pilothouse.apiserver.cel.values import NONE, Optional
from pilothouse.kinds import names

__all__ = ["FORMATS", "Format", "is_byte", "is_date", "is_date_time", "is_uuid"]

FORMATS = Functions()
_FORMAT = "kubernetes.NamedFormat"
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})")
_TIME = re.compile(r"(\d{2}):(\d{2}):(\d{2})(.\d+)?(?:z|[+-]\d{2}:\d{2})", re.ASCII)


def is_uuid(text: str) -> bool:
    """Whether it is a UUID, with or without dashes."""
    return _UUID.fullmatch(text) is not None


def is_byte(text: str) -> bool:
    """Whether it is base64 and not empty."""
    return _BASE64.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether it is a day: `2021-01-31`."""
    if len(text) != 10 or not text.isascii():
        return False
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return text[4] == text[7] == "-"


def is_date_time(text: str) -> bool:
    """Whether it is a time of RFC 3339, in either case."""
    day, _, time = text.lower().partition("t")
    match = _TIME.fullmatch(time)
    if match is None or not is_date(day):
        return False
    return int(match[1]) <= 23 and int(match[2]) <= 59 and int(match[3]) <= 59


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its name, what is wrong with a text, and the length that its pattern counts as."""

    name: str
    faults: Callable[[str], Sequence[str]]
    size: int

    type_name = _FORMAT

    def __str__(self) -> str:
        return self.name


def _prefix(rule: Callable[[str], Sequence[str]]) -> Callable[[str], Sequence[str]]:
    return lambda text: rule(names.mask_trailing_dash(text))


def _either(check: Callable[[str], bool], fault: str) -> Callable[[str], Sequence[str]]:
    return lambda text: () if check(text) else (fault,)


def _uri(text: str) -> Sequence[str]:
    fault = uri_fault(text)
    return (fault,) if fault else ()


_NAMED = {
    "dns1123Label": Format("DNS1123Label", names.dns1123_label, 30),
    "dns1123Subdomain": Format("DNS1123Subdomain", names.dns1123_subdomain, 60),
    "dns1035Label": Format("DNS1035Label", names.dns1035_label, 30),
    "qualifiedName": Format("QualifiedName", names.label_key, 60),
    "dns1123LabelPrefix": Format("DNS1123LabelPrefix", _prefix(names.dns1123_label), 30),
    "dns1123SubdomainPrefix": Format("DNS1123SubdomainPrefix", _prefix(names.dns1123_subdomain), 60),
    "dns1035LabelPrefix": Format("DNS1035LabelPrefix", _prefix(names.dns1035_label), 30),
    "labelValue": Format("LabelValue", names.label_value, 40),
    "uri": Format("URI", _uri, 1103),
    "uuid": Format("uuid", _either(is_uuid, "does not match the UUID format"), 97),
    "byte": Format("byte", _either(is_byte, "invalid base64"), 98),
    "date": Format("date", _either(is_date, "invalid date"), 83),
    "datetime": Format("datetime", _either(is_date_time, "invalid datetime"), 83),
}


def _named(name: str) -> Optional:
    found = _NAMED.get(name)
    return NONE if found is None else Optional(found)


def _validate(found: Format, text: str) -> Optional:
    faults = found.faults(text)
    return Optional(list(faults)) if faults else NONE


def _cost(found: Any, text: str) -> int:
    return -(-(1 + len(text)) // 10) * -(-int(found.size) // 4)


FORMATS.add("format.named", _named, f"string -> optional({_FORMAT})")
FORMATS.add("validate", _validate, f"{_FORMAT} @ string -> optional(list(string))", cost=_cost)
for _name, _made in _NAMED.items():
    FORMATS.add(f"format.{_name}", lambda made=_made: made, f"-> {_FORMAT}")
