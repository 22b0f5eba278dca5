"""The values of expressions, beyond what JSON has: how they compare, what they are called, how they get out.

Plain Python where it can be: str, bytes, bool, int, float, None, list, dict. The rest are classes of this module and of
the libraries; those have a `type_name`.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from pilothouse.apiserver.cel.errors import CelError

__all__ = [
    "INT_MAX",
    "INT_MIN",
    "NONE",
    "UINT_MAX",
    "Duration",
    "LazyMap",
    "Optional",
    "Timestamp",
    "TypeValue",
    "Uint",
    "equal",
    "no_overload",
    "plain",
    "type_name",
]

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1
UINT_MAX: Final = (1 << 64) - 1
_SECOND = 1_000_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# 0001-01-01 to 9999-12-31, in seconds from 1970.
_FIRST, _LAST = -62135596800, 253402300799


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


@functools.total_ordering
class Duration:
    """A length of time in nanoseconds."""

    __slots__ = ("ns",)
    type_name = "google.protobuf.Duration"

    def __init__(self, ns: int) -> None:
        if not INT_MIN <= ns <= INT_MAX:
            raise CelError("range")
        self.ns = ns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ns == other.ns

    def __lt__(self, other: Duration) -> bool:
        return self.ns < other.ns

    def __hash__(self) -> int:
        return hash(self.ns)

    def __str__(self) -> str:
        seconds, rest = divmod(abs(self.ns), _SECOND)
        sign = "-" if self.ns < 0 else ""
        return f"{sign}{seconds}{f'.{rest:09d}'.rstrip('0') if rest else ''}s"


@functools.total_ordering
class Timestamp:
    """A moment in nanoseconds since 1970; offset: minutes east of UTC, which only its text shows.

    Raises CelError outside the years 1 to 9999.
    """

    __slots__ = ("ns", "offset")
    type_name = "google.protobuf.Timestamp"

    def __init__(self, ns: int, offset: int = 0) -> None:
        if not _FIRST <= ns // _SECOND <= _LAST:
            raise CelError("timestamp overflow")
        self.ns = ns
        self.offset = offset

    @classmethod
    def of(cls, moment: dt.datetime, nanoseconds: int = 0) -> Timestamp:
        """Make one of an aware time in whole seconds and the nanoseconds after it."""
        offset = (moment.utcoffset() or dt.timedelta()) // dt.timedelta(minutes=1)
        return cls((moment - _EPOCH) // dt.timedelta(seconds=1) * _SECOND + nanoseconds, offset)

    def at(self, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
        """Return the time in a zone, in whole microseconds."""
        try:
            return (_EPOCH + dt.timedelta(microseconds=self.ns // 1000)).astimezone(zone)
        except OverflowError:
            raise CelError("timestamp overflow") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.ns == other.ns

    def __lt__(self, other: Timestamp) -> bool:
        return self.ns < other.ns

    def __hash__(self) -> int:
        return hash(self.ns)

    def __str__(self) -> str:
        seconds, rest = divmod(self.ns, _SECOND)
        moment = _EPOCH + dt.timedelta(seconds=min(max(seconds + 60 * self.offset, _FIRST), _LAST))
        zone = f"{'-' if self.offset < 0 else '+'}{abs(self.offset) // 60:02d}:{abs(self.offset) % 60:02d}"
        return (
            f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0")
            + (f".{rest:09d}".rstrip("0") if rest else "")
            + (zone if self.offset else "Z")
        )


class TypeValue:
    """A type as a value: `type(1)`, `int`."""

    __slots__ = ("name",)
    type_name = "type"

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeValue) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


class Optional:
    """A value that may be absent."""

    __slots__ = ("present", "value")
    type_name = "optional_type"

    def __init__(self, value: Any, *, present: bool = True) -> None:
        self.value = value
        self.present = present

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Optional) or self.present != other.present:
            return False
        return not self.present or equal(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]


NONE: Final = Optional(None, present=False)


class LazyMap(dict[str, Any]):
    """A map whose values are made when first asked for, once: the `variables` of a policy.

    makers: what makes each value. An error of a maker comes up in the expression that asks, each time.
    """

    __slots__ = ("_makers",)

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__()
        self._makers = makers

    def __missing__(self, key: str) -> Any:
        value = self[key] = self._makers[key]()
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._makers


_NAMES: dict[type, str] = {
    str: "string",
    int: "int",
    bool: "bool",
    float: "double",
    bytes: "bytes",
    Uint: "uint",
    type(None): "null_type",
    list: "list",
    tuple: "list",
    dict: "map",
}


def type_name(value: Any) -> str:
    """Return what `type(value)` is called."""
    found = _NAMES.get(type(value))
    if found is not None:
        return found
    if isinstance(value, list):
        return "list"
    return str(getattr(value, "type_name", "dyn"))


def no_overload(*_: Any) -> CelError:
    """Return the error for a function that does not take these values."""
    return CelError("no such overload")


_SIMPLE = frozenset({str, int, float, bool, bytes, type(None)})


def equal(left: Any, right: Any) -> bool:
    """Whether two values are equal: numbers by value whatever their type, others only within their type."""
    kind = type(left)
    if kind is type(right):
        if kind in _SIMPLE:
            return bool(left == right)
        if kind is dict:
            if len(left) != len(right):
                return False
            return all(key in right and equal(value, right[key]) for key, value in left.items())
        if kind is list:
            return len(left) == len(right) and all(map(equal, left, right))
        return bool(left == right)
    if kind is bool or type(right) is bool:
        return False
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    if isinstance(left, list) and isinstance(right, list):
        return _equal_lists(left, right)
    return isinstance(left, dict) and isinstance(right, dict) and dict(left) == dict(right)


def _equal_lists(left: list[Any], right: list[Any]) -> bool:
    """Compare lists of different classes: one that merges as a set or a map says itself what is equal to it."""
    for one, other in ((left, right), (right, left)):
        if hasattr(one, "equals_list"):
            return bool(one.equals_list(other))
    return len(left) == len(right) and all(map(equal, left, right))


def plain(value: Any) -> Any:
    """Return a result as plain Python: times and durations as text, types by name, absent optionals as None."""
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if kind is Uint:
        return int(value)
    if kind is Optional:
        return plain(value.value) if value.present else None
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)
