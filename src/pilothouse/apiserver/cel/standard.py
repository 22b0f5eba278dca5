"""The standard functions of CEL: arithmetic, comparison, conversions, sizes, text."""

from __future__ import annotations

import math
import operator
from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.regex import PatternError, found
from pilothouse.apiserver.cel.sizes import pair_cost, regex_cost, search_cost, text_cost, texts_cost
from pilothouse.apiserver.cel.times import parse_duration, parse_timestamp
from pilothouse.apiserver.cel.values import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    Duration,
    Timestamp,
    TypeValue,
    Uint,
    equal,
    type_name,
)

__all__ = ["STANDARD", "as_text", "contains", "index", "matches"]

STANDARD = Functions()
_SECOND = 1_000_000_000


def _int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise CelError("integer overflow")


def _uint(value: int) -> Uint:
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise CelError("unsigned integer overflow")


def _quotient(left: int, right: int) -> int:
    if right == 0:
        raise CelError("division by zero")
    found = abs(left) // abs(right)
    return found if (left < 0) == (right < 0) else -found


def _remainder(left: int, right: int) -> int:
    if right == 0:
        raise CelError("modulus by zero")
    return int(math.fmod(left, right)) if abs(left) < 1 << 52 else left - right * _quotient(left, right)


def _float_quotient(left: float, right: float) -> float:
    if right == 0:
        return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)
    return left / right


def _float_product(left: float, right: float) -> float:
    return left * right


def _arithmetic() -> None:
    for name, run in (("_+_", operator.add), ("_-_", operator.sub), ("_*_", operator.mul)):
        STANDARD.add(name, lambda a, b, run=run: _int(run(a, b)), "int, int -> int")
        STANDARD.add(name, lambda a, b, run=run: _uint(run(int(a), int(b))), "uint, uint -> uint")
        STANDARD.add(name, run, "double, double -> double")
    STANDARD.add("_/_", lambda a, b: _int(_quotient(a, b)), "int, int -> int")
    STANDARD.add("_/_", lambda a, b: Uint(_quotient(int(a), int(b))), "uint, uint -> uint")
    STANDARD.add("_/_", _float_quotient, "double, double -> double")
    STANDARD.add("_%_", _remainder, "int, int -> int")
    STANDARD.add("_%_", lambda a, b: Uint(_remainder(int(a), int(b))), "uint, uint -> uint")
    STANDARD.add("-_", lambda a: _int(-a), "int -> int")
    STANDARD.add("-_", operator.neg, "double -> double")
    STANDARD.add("!_", operator.not_, "bool -> bool")
    STANDARD.add("_+_", operator.add, "string, string -> string", "bytes, bytes -> bytes", cost=texts_cost)
    STANDARD.add("_+_", _joined, "list(A), list(A) -> list(A)", cost=lambda a, b: 1 + (len(a) + len(b)) // 10)
    STANDARD.add("_+_", lambda a, b: _later(a, b.ns), "timestamp, duration -> timestamp")
    STANDARD.add("_+_", lambda a, b: _later(b, a.ns), "duration, timestamp -> timestamp")
    STANDARD.add("_+_", lambda a, b: _duration(a.ns + b.ns), "duration, duration -> duration")
    STANDARD.add("_-_", lambda a, b: _later(a, -b.ns), "timestamp, duration -> timestamp")
    STANDARD.add("_-_", lambda a, b: _duration(a.ns - b.ns), "timestamp, timestamp -> duration")
    STANDARD.add("_-_", lambda a, b: _duration(a.ns - b.ns), "duration, duration -> duration")


def _joined(left: list[Any], right: list[Any]) -> list[Any]:
    if hasattr(left, "plus"):
        return left.plus(right)  # type: ignore[no-any-return]
    return [*left, *right]


def _later(moment: Timestamp, ns: int) -> Timestamp:
    return Timestamp(moment.ns + ns, moment.offset)


def _duration(ns: int) -> Duration:
    if not INT_MIN <= ns <= INT_MAX:
        raise CelError("duration overflow")
    return Duration(ns)


_NUMBERS = ("int", "uint", "double")


def _comparisons() -> None:
    same = ("bool", "string", "bytes", "timestamp", "duration")
    for name, run in (("_<_", operator.lt), ("_<=_", operator.le), ("_>_", operator.gt), ("_>=_", operator.ge)):
        pairs = [f"{left}, {right} -> bool" for left in _NUMBERS for right in _NUMBERS]
        STANDARD.add(name, run, *pairs)
        STANDARD.add(name, run, *(f"{kind}, {kind} -> bool" for kind in same), cost=pair_cost)
    STANDARD.add("_==_", equal, "A, A -> bool", cost=pair_cost)
    STANDARD.add("_!=_", lambda a, b: not equal(a, b), "A, A -> bool", cost=pair_cost)
    STANDARD.add("@in", contains, "A, list(A) -> bool", cost=search_cost)
    STANDARD.add("@in", contains, "A, map(A, B) -> bool")


def contains(value: Any, found: Any) -> bool:
    """Whether a value is an element of a list or a key of a map."""
    if isinstance(found, dict):
        return _key(found, value) is not None
    if type(value) is str:
        return value in found
    return any(equal(value, each) for each in found)


def _key(found: dict[Any, Any], key: Any) -> tuple[Any] | None:
    """Return the key as the map has it, in a tuple; numbers find each other, and booleans only themselves."""
    if isinstance(key, (list, dict)):
        return None
    if key in found:
        if type(key) is str:
            return (key,)
        kept = next(each for each in found if each == key)
        return (kept,) if equal(kept, key) else None
    return None


def index(found: Any, key: Any) -> Any:
    """Return an element of a list or the value of a key. Raises CelError where there is none."""
    if isinstance(found, (list, tuple)):
        if type(key) is float and key.is_integer():
            key = int(key)
        if isinstance(key, bool) or not isinstance(key, int):
            raise CelError(f"unsupported index type '{type_name(key)}' in list")
        if not 0 <= key < len(found):
            raise CelError(f"index out of bounds: {key}")
        return found[key]
    if isinstance(found, dict):
        if type(key) is str:
            try:
                return found[key]
            except KeyError:
                raise CelError(f"no such key: {key}") from None
        if (kept := _key(found, key)) is not None:
            return found[kept[0]]
        raise CelError(f"no such key: {as_text(key)}")
    raise CelError("no such overload")


def _sizes() -> None:
    for kind in ("string", "bytes", "list(A)", "map(A, B)"):
        STANDARD.add("size", len, f"{kind} -> int", f"{kind} @ -> int")


def matches(text: str, pattern: str) -> bool:
    """Whether a pattern matches anywhere in a text. Raises CelError for a bad pattern."""
    try:
        return found(pattern, text)
    except PatternError as error:
        raise CelError(str(error)) from None


def _has_part(text: str, part: str) -> bool:
    return part in text


def _texts() -> None:
    STANDARD.add("contains", _has_part, "string @ string -> bool", cost=lambda a, b: text_cost(a) * text_cost(b))
    STANDARD.add("startsWith", str.startswith, "string @ string -> bool", cost=lambda a, _: text_cost(a))
    STANDARD.add("endsWith", str.endswith, "string @ string -> bool", cost=lambda a, _: text_cost(a))
    STANDARD.add("matches", matches, "string @ string -> bool", "string, string -> bool", cost=regex_cost)


def as_text(value: Any) -> str:
    """Return what `string(value)` gives."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
    return str(value) if not isinstance(value, Uint) else str(int(value))


def _float_text(value: float) -> str:
    """Write a number as Go's `%g` with the fewest digits that give it back."""
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    mantissa, _, exponent = f"{value!r}".lower().partition("e")
    if not exponent and -1e6 < value < 1e6 and (value == 0 or abs(value) >= 1e-4):
        return mantissa.removesuffix(".0")
    for digits in range(17):
        text = f"{value:.{digits}e}"
        if float(text) == value:
            return text
    return f"{value:.17e}"


def _to_int(value: Any) -> int:
    if isinstance(value, float):
        if not INT_MIN < value < INT_MAX:
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, str):
        return _number(value, "int", INT_MIN, INT_MAX)
    if isinstance(value, Timestamp):
        return value.ns // _SECOND
    if isinstance(value, Duration):
        return value.ns
    return _int(int(value))


def _number(text: str, kind: str, least: int, most: int) -> int:
    digits = text[1:] if text[:1] in {"+", "-"} and kind == "int" else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 40:
        name = "ParseInt" if kind == "int" else "ParseUint"
        raise CelError(f'strconv.{name}: parsing "{text}": invalid syntax')
    value = int(text)
    if not least <= value <= most:
        name = "ParseInt" if kind == "int" else "ParseUint"
        raise CelError(f'strconv.{name}: parsing "{text}": value out of range')
    return value


def _to_uint(value: Any) -> Uint:
    if isinstance(value, str):
        return Uint(_number(value, "uint", 0, UINT_MAX))
    if isinstance(value, float) and not 0 <= value < UINT_MAX:
        raise CelError("unsigned integer overflow")
    return _uint(int(value))


def _to_double(value: Any) -> float:
    if isinstance(value, str):
        try:
            if "_" not in value and value == value.strip():
                return float(value)
        except ValueError:
            pass
        raise CelError(f'strconv.ParseFloat: parsing "{value}": invalid syntax')
    return float(value)


_BOOLS = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True)
_BOOLS |= dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value not in _BOOLS:
        raise CelError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    return _BOOLS[value]


def _to_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _conversions() -> None:
    numbers = ("int", "uint", "double", "string")
    STANDARD.add("int", _to_int, *(f"{kind} -> int" for kind in (*numbers, "timestamp", "duration")))
    STANDARD.add("uint", _to_uint, *(f"{kind} -> uint" for kind in numbers))
    STANDARD.add("double", _to_double, *(f"{kind} -> double" for kind in numbers))
    STANDARD.add("bool", _to_bool, "bool -> bool", "string -> bool")
    STANDARD.add("string", as_text, "string -> string")
    plainly = ("bool", "int", "uint", "double", "timestamp", "duration")
    STANDARD.add("string", as_text, *(f"{kind} -> string" for kind in plainly))
    STANDARD.add("string", as_text, "bytes -> string", cost=text_cost)
    STANDARD.add("bytes", _to_bytes, "bytes -> bytes", "string -> bytes", cost=text_cost)
    STANDARD.add("timestamp", lambda value: value, "timestamp -> timestamp")
    STANDARD.add("timestamp", parse_timestamp, "string -> timestamp")
    STANDARD.add("timestamp", lambda value: Timestamp(value * _SECOND), "int -> timestamp")
    STANDARD.add("duration", lambda value: value, "duration -> duration")
    STANDARD.add("duration", parse_duration, "string -> duration")
    STANDARD.add("duration", Duration, "int -> duration")
    STANDARD.add("dyn", lambda value: value, "A -> dyn")
    STANDARD.add("type", lambda value: TypeValue(type_name(value)), "A -> type(A)")


_arithmetic()
_comparisons()
_sizes()
_texts()
_conversions()
