"""The text that Kubernetes hashes a pod template as: Go's dump of the value, with types, all fields, sorted keys.

`data/podtemplates.json` has each type's fields in Go's order: the field's name, its name in JSON (`.` for one whose
fields stand in its place), its type, and how it is written: `s`tring, `b`ool, `i`nteger, `Q`uantity, `I`ntOrString,
`T`ime, `=`struct, behind `*` for a pointer, `[` for a list, `m` for a map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

import msgspec

from pilothouse.kinds.quantity import QuantityError, canonical

__all__ = ["dump"]

_NOTHING: Final = "<nil>"
_ROOT: Final = "PodTemplateSpec"
_INT64: Final = 2**63 - 1
_WORD: Final = 2**64 - 1
_DIGITS: Final = 18
_QUANTITY: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([a-zA-Z]*)([-+]?[0-9]*)").fullmatch
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

_Writer = Callable[[Any], str]


def dump(template: Mapping[str, Any]) -> str:
    """Give the text for a template as JSON decodes it; quantities and fields as the server stores them.

    Raises QuantityError.
    """
    return f"(v1.{_ROOT}){_writer('=' + _ROOT)(template)}"


@cache
def _types() -> dict[str, list[str]]:
    data = (resources.files(__package__) / "data" / "podtemplates.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, list[str]])


@cache
def _writer(way: str) -> _Writer:
    """Return what writes values of one kind, without their type; None is a value that is not there."""
    first, rest = way[0], way[1:]
    if first == "=":
        return _struct(rest)
    if first in "*[m":
        return _CONTAINERS[first](_writer(rest))
    return _LEAVES[first]


def _struct(name: str) -> _Writer:
    fields: list[tuple[str, str, _Writer]] = []

    def write(value: Any) -> str:
        if not fields:  # not before all types are there: some hold themselves
            for row in _types()[name]:
                field, key, kind, way = row.split()
                fields.append((f"{field}:({kind})", key, _writer(way)))
        tree = value or {}
        return "{" + " ".join(head + inner(tree if key == "." else tree.get(key)) for head, key, inner in fields) + "}"

    return write


def _pointer(inner: _Writer) -> _Writer:
    return lambda value: _NOTHING if value is None else inner(value)


def _list(inner: _Writer) -> _Writer:
    return lambda value: "[" + " ".join(map(inner, value)) + "]" if value else _NOTHING


def _map(inner: _Writer) -> _Writer:
    def write(value: Any) -> str:
        if not value:
            return _NOTHING
        return "map[" + " ".join(f"{key}:{inner(value[key])}" for key in sorted(value)) + "]"

    return write


def _string(value: Any) -> str:
    return value or ""


def _bool(value: Any) -> str:
    return "true" if value else "false"


def _integer(value: Any) -> str:
    return str(value or 0)


def _int_or_string(value: Any) -> str:
    text = isinstance(value, str)
    number, letters = (0, value) if text else (value or 0, "")
    return f"{{Type:(intstr.Type){int(text)} IntVal:(int32){number} StrVal:(string){letters}}}"


def _time(_: Any) -> str:
    # Of a template only `metadata.creationTimestamp` is a time, and it is never set.
    return "{Time:(time.Time){wall:(uint64)0 ext:(int64)0 loc:(*time.Location)<nil>}}"


def _quantity(value: Any) -> str:
    text = canonical(str(value or 0))
    found = _QUANTITY(text)
    if found is None:
        raise QuantityError(f"quantity {text!r} is in no notation")
    sign, whole, part, suffix, exponent = found[1], found[2], found[3] or "", found[4], found[5]
    binary = suffix in _BINARY
    power = _BINARY[suffix] if binary else int(exponent) if exponent else _DECIMAL[suffix]
    form = "BinarySI" if binary else "DecimalExponent" if exponent else "DecimalSI"
    fast = _fast(whole.lstrip("0"), part, power, binary=binary)
    negative = -1 if sign == "-" else 1
    if fast is None:
        return _amount(0, 0, _decimal(int(whole + part) * negative, len(part), power, binary=binary), "", form)
    number, scale, keeps = fast
    return _amount(number * negative, scale, _NOTHING, text if keeps else "", form)


def _fast(whole: str, part: str, power: int, *, binary: bool) -> tuple[int, int, bool] | None:
    """Give number, scale, and whether Go keeps the text, where it takes an amount for one of 64 bits."""
    digits = whole + part
    if binary:
        room = 15 - len(whole) - int(power * 3 / 10) - 1
        if part or room < 0:
            return None
        value = int(digits or 0)
        number = value << power
        return (number, 0, value & 7 != 0) if number <= _INT64 else None
    scale = power - len(part)
    if len(digits) > _DIGITS or scale < _DECIMAL["n"]:
        return None
    keeps = digits == "" or (scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0")
    return int(digits or 0), scale, keeps


def _decimal(number: int, places: int, power: int, *, binary: bool) -> str:
    """Write what is too large for that: a decimal of billionths; binary ones are capped, as a whole number."""
    scale = 9
    if binary:
        unscaled = min(number << power, _INT64)
        unscaled, scale = (unscaled, 0) if unscaled == _INT64 else (unscaled * 10**9, scale)
    else:
        unscaled = number * 10 ** (9 + power - places)
    words, rest = [], abs(unscaled)
    while rest:
        words.append(str(rest & _WORD))
        rest >>= 64
    big = f"{{neg:(bool){_bool(unscaled < 0)} abs:(big.nat)[{' '.join(words)}]}}"
    return f"{{unscaled:(big.Int){big} scale:(inf.Scale){scale}}}"


def _amount(number: int, scale: int, decimal: str, text: str, form: str) -> str:
    whole = f"i:(resource.int64Amount){{value:(int64){number} scale:(resource.Scale){scale}}}"
    exact = f"d:(resource.infDecAmount){{Dec:(*inf.Dec){decimal}}}"
    return f"{{{whole} {exact} s:(string){text} Format:(resource.Format){form}}}"


_CONTAINERS: Final = {"*": _pointer, "[": _list, "m": _map}
_LEAVES: Final[dict[str, _Writer]] = {
    "s": _string,
    "b": _bool,
    "i": _integer,
    "I": _int_or_string,
    "Q": _quantity,
    "T": _time,
}
