"""`"%s is %d".format([...])`: what each verb makes of which value."""

from __future__ import annotations

import math
import re
from typing import Any

from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.values import Duration, Timestamp, TypeValue, Uint, type_name

__all__ = ["formatted"]

_CLAUSE = re.compile(r"%(?:(%)|(?:\.(\d+))?([sdfebxXo]))|%")
_MAX_PRECISION = 1000
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MAX_RESULT = 4 << 20


def formatted(text: str, args: list[Any]) -> str:
    """Return the text with its clauses replaced by the arguments in turn. Raises CelError."""
    made: list[str] = []
    place = used = size = 0
    for match in _CLAUSE.finditer(text):
        made.append(text[place : match.start()])
        place = match.end()
        if match[1]:
            made.append("%")
            continue
        if not match[3]:
            raise CelError(
                f'could not parse formatting clause: unrecognized formatting clause "{text[place : place + 1]}"'
            )
        if used >= len(args):
            raise CelError(f"index {used} out of range")
        made.append(_clause(match[3], match[2], args[used]))
        size += len(made[-1])
        if size > _MAX_RESULT:
            raise CelError("operation cancelled: actual cost limit exceeded")
        used += 1
    made.append(text[place:])
    return "".join(made)


def _clause(verb: str, precision: str | None, value: Any) -> str:
    digits = 6 if precision is None else min(int(precision[:9]), _MAX_PRECISION)
    match verb:
        case "s":
            return _string(value)
        case "d":
            return _decimal(value)
        case "f" | "e":
            return _float(verb, digits, value)
        case "b":
            return _binary(value)
        case "o":
            return _octal(value)
    return _hex(verb, value)


def _wrong(verb: str, wanted: str, value: Any) -> CelError:
    return CelError(
        f"error during formatting: {verb} clause can only be used on {wanted}, was given {type_name(value)}"
    )


def _number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    text = repr(value)
    if "e" in text:
        text = f"{value:.0f}" if abs(value) >= 1 else f"{value:.20f}".rstrip("0")
    return text.removesuffix(".0")


def _string(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "replace")
        case float():
            return _number(value)
        case Uint() | int():
            return str(int(value))
        case list() | tuple():
            return f"[{', '.join(map(_string, value))}]"
        case dict():
            return "{" + ", ".join(sorted(f"{_string(key)}: {_string(item)}" for key, item in value.items())) + "}"
        case Timestamp() | Duration() | TypeValue():
            return str(value)
    raise _wrong("string", "strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps", value)


def _decimal(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return _number(value)
    raise _wrong("decimal", "ints, uints, and doubles", value)


def _float(verb: str, digits: int, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong("fixed-point" if verb == "f" else "scientific", "ints, uints, and doubles", value)
    number = float(value)
    if math.isnan(number) or math.isinf(number):
        return _number(number)
    if verb == "f":
        return f"{number:.{digits}f}"
    mantissa, _, exponent = f"{number:.{digits}e}".partition("e")
    return f"{mantissa}\u00d710{exponent.removeprefix('+').translate(_RAISED)}"


def _binary(value: Any) -> str:
    if isinstance(value, int):
        return f"{int(value):b}"
    raise _wrong("binary", "ints, uints, and bools", value)


def _octal(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{int(value):o}"
    raise _wrong("octal", "ints and uints", value)


def _hex(verb: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        text = f"{int(value):x}"
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass").hex()
    elif isinstance(value, bytes):
        text = value.hex()
    else:
        raise _wrong("hex", "ints, uints, bytes, and strings", value)
    return text.upper() if verb == "X" else text
