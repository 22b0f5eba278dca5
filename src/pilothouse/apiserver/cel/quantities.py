"""Kubernetes' quantities and semantic versions in expressions."""

from __future__ import annotations

import functools
import re
from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.sizes import text_cost
from pilothouse.apiserver.cel.values import INT_MAX, INT_MIN
from pilothouse.kinds import quantity

__all__ = ["QUANTITIES", "QuantityValue", "Semver"]

QUANTITIES = Functions()
_QUANTITY, _SEMVER = "kubernetes.Quantity", "kubernetes.Semver"


class QuantityValue:
    """A quantity: `quantity("1Gi")`."""

    __slots__ = ("quantity",)
    type_name = _QUANTITY

    def __init__(self, value: quantity.Quantity) -> None:
        self.quantity = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuantityValue) and self.quantity == other.quantity

    def __hash__(self) -> int:
        return hash(self.quantity)

    def __str__(self) -> str:
        return str(self.quantity)


def _parse(text: str) -> QuantityValue:
    try:
        return QuantityValue(quantity.parse(text))
    except quantity.QuantityError as error:
        raise CelError(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except quantity.QuantityError:
        return False
    return True


def _sign(value: QuantityValue) -> int:
    exact = value.quantity.exact()
    return (exact > 0) - (exact < 0)


def _is_integer(value: QuantityValue) -> bool:
    exact = value.quantity.exact()
    return exact.denominator == 1 and INT_MIN <= exact.numerator <= INT_MAX


def _as_integer(value: QuantityValue) -> int:
    if not _is_integer(value):
        raise CelError("cannot convert value to integer")
    return value.quantity.exact().numerator


def _compare(left: QuantityValue, right: QuantityValue) -> int:
    return left.quantity.compare(right.quantity)


def _of(value: QuantityValue | int) -> quantity.Quantity:
    return quantity.Quantity(value) if isinstance(value, int) else value.quantity


def _add(left: QuantityValue, right: QuantityValue | int) -> QuantityValue:
    return QuantityValue(left.quantity + _of(right))


def _sub(left: QuantityValue, right: QuantityValue | int) -> QuantityValue:
    return QuantityValue(left.quantity - _of(right))


_both = f"{_QUANTITY} @ {_QUANTITY}"
QUANTITIES.add("quantity", _parse, f"string -> {_QUANTITY}", cost=text_cost)
QUANTITIES.add("isQuantity", _is_quantity, "string -> bool", cost=text_cost)
QUANTITIES.add("sign", _sign, f"{_QUANTITY} @ -> int")
QUANTITIES.add("isInteger", _is_integer, f"{_QUANTITY} @ -> bool")
QUANTITIES.add("asInteger", _as_integer, f"{_QUANTITY} @ -> int")
QUANTITIES.add("asApproximateFloat", lambda value: float(value.quantity.exact()), f"{_QUANTITY} @ -> double")
QUANTITIES.add("add", _add, f"{_both} -> {_QUANTITY}", f"{_QUANTITY} @ int -> {_QUANTITY}")
QUANTITIES.add("sub", _sub, f"{_both} -> {_QUANTITY}", f"{_QUANTITY} @ int -> {_QUANTITY}")
QUANTITIES.add("isGreaterThan", lambda a, b: _compare(a, b) > 0, f"{_both} -> bool")
QUANTITIES.add("isLessThan", lambda a, b: _compare(a, b) < 0, f"{_both} -> bool")
QUANTITIES.add("compareTo", _compare, f"{_both} -> int")

_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_LONGEST_NUMBER = 20


@functools.total_ordering
class Semver:
    """A semantic version: `semver("1.2.3")`. Build metadata does not count."""

    __slots__ = ("key", "numbers", "text")
    type_name = _SEMVER

    def __init__(self, text: str) -> None:
        match = _VERSION.fullmatch(text)
        if match is None or any(len(part) > _LONGEST_NUMBER for part in match.groups()[:3]):
            raise CelError(_version_fault(text))
        self.text = text
        self.numbers = (int(match[1]), int(match[2]), int(match[3]))
        parts = match[4].split(".") if match[4] else []
        ranked: tuple[Any, ...] = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
        self.key = (self.numbers, not parts, ranked)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.key == other.key

    def __lt__(self, other: Semver) -> bool:
        return self.key < other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.text


def _version_fault(text: str) -> str:
    if not text:
        return "Version string empty"
    parts = text.split(".", 2)
    if len(parts) != 3:
        return "No Major.Minor.Patch elements found"
    for name, part in zip(("major", "minor", "patch"), (*parts[:2], re.split(r"[-+]", parts[2])[0]), strict=True):
        if not part.isdigit():
            return f'Invalid character(s) found in {name} number "{part}"'
        if len(part) > 1 and part[0] == "0":
            return f'{name.capitalize()} number must not contain leading zeroes "{part}"'
    return f'Invalid character(s) found in prerelease or build metadata of "{text}"'


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for at, part in enumerate(parts):
        if len(part) > 1:
            kept = part.lstrip("0")
            parts[at] = kept if kept[:1].isdigit() else "0" + kept
    if len(parts) < 3:
        if re.search(r"[-+]", parts[-1]):
            raise CelError("Short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _semver(text: str, normalize: bool = False) -> Semver:
    return Semver(_normalized(text) if normalize else text)


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _semver(text, normalize)
    except CelError:
        return False
    return True


_versions = f"{_SEMVER} @ {_SEMVER}"
QUANTITIES.add("semver", _semver, f"string -> {_SEMVER}", f"string, bool -> {_SEMVER}", cost=text_cost)
QUANTITIES.add("isSemver", _is_semver, "string -> bool", "string, bool -> bool", cost=text_cost)
for _at, _name in enumerate(("major", "minor", "patch")):
    QUANTITIES.add(_name, lambda value, at=_at: value.numbers[at], f"{_SEMVER} @ -> int")
QUANTITIES.add("isGreaterThan", lambda a, b: a > b, f"{_versions} -> bool")
QUANTITIES.add("isLessThan", lambda a, b: a < b, f"{_versions} -> bool")
QUANTITIES.add("compareTo", lambda a, b: (a > b) - (a < b), f"{_versions} -> int")
