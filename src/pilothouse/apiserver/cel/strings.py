"""Functions on strings, as cel-go's strings library in version 2 has them, and `find` and `findAll` of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.formatting import formatted
from pilothouse.apiserver.cel.regex import PatternError, compile_pattern
from pilothouse.apiserver.cel.sizes import list_cost, regex_cost, text_cost, twice, weight

__all__ = ["STRINGS"]

STRINGS = Functions()
_SPACES = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(65, 91)})
_UPPER = str.maketrans({chr(code): chr(code - 32) for code in range(97, 123)})


def _char_at(text: str, position: int) -> str:
    if not 0 <= position <= len(text):
        raise CelError(f"index out of range: {position}")
    return text[position : position + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if not part:
        return start
    if not 0 <= start < max(len(text), 1):
        raise CelError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(text: str, part: str, end: int | None = None) -> int:
    if not part:
        return len(text) if end is None else end
    if end is None:
        return text.rfind(part)
    if not 0 <= end < len(text):
        raise CelError(f"index out of range: {end}")
    return text.rfind(part, 0, end + len(part))


def _substring(text: str, start: int, end: int | None = None) -> str:
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    if end is None:
        return text[start:]
    if start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    if end > len(text):
        raise CelError(f"index out of range: {end}")
    return text[start:end]


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    # One expression may not make texts that grow and grow.
    if len(text) + (text.count(old) if old else len(text) + 1) * len(new) > 16 << 20:
        raise CelError("operation cancelled: actual cost limit exceeded")
    return text.replace(old, new, count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if separator:
        return text.split(separator, count - 1 if count > 0 else -1)
    if count < 0 or count >= len(text):
        return list(text)
    return [*text[: count - 1], text[count - 1 :]]


def _join(parts: list[Any], separator: str = "") -> str:
    for part in parts:
        if not isinstance(part, str):
            raise CelError(f"join: invalid input: {part}")
    return separator.join(parts)


_QUOTED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_QUOTE = str.maketrans({**_QUOTED, "\\": "\\\\", '"': '\\"'})


def _quote(text: str) -> str:
    return f'"{text.translate(_QUOTE)}"'


def _pattern(text: str) -> Any:
    try:
        return compile_pattern(text)
    except PatternError as error:
        raise CelError(f"Illegal regex: {error}") from None


def _found(text: str, pattern: str, limit: int) -> Iterator[str]:
    for count, match in enumerate(_pattern(pattern).finditer(text)):
        if count == limit:
            return
        yield match.group(0)


def _find(text: str, pattern: str) -> str:
    return next(_found(text, pattern, 1), "")


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    return list(_found(text, pattern, limit))


def _join_cost(parts: list[Any], separator: str = "") -> int:
    return list_cost(parts) + len(parts) * (1 + len(separator) // 10)


STRINGS.add("charAt", _char_at, "string @ int -> string")
STRINGS.add("indexOf", _index_of, "string @ string -> int", "string @ string, int -> int", cost=text_cost)
STRINGS.add("lastIndexOf", _last_index_of, "string @ string -> int", "string @ string, int -> int", cost=text_cost)
STRINGS.add("lowerAscii", lambda text: text.translate(_LOWER), "string @ -> string", cost=text_cost)
STRINGS.add("upperAscii", lambda text: text.translate(_UPPER), "string @ -> string", cost=text_cost)
STRINGS.add("trim", lambda text: text.strip(_SPACES), "string @ -> string", cost=text_cost)
STRINGS.add("substring", _substring, "string @ int -> string", "string @ int, int -> string", cost=text_cost)
STRINGS.add(
    "replace", _replace, "string @ string, string -> string", "string @ string, string, int -> string", cost=twice
)
STRINGS.add("split", _split, "string @ string -> list(string)", "string @ string, int -> list(string)", cost=twice)
STRINGS.add("join", _join, "list(string) @ -> string", "list(string) @ string -> string", cost=_join_cost)
STRINGS.add("format", formatted, "string @ list(dyn) -> string", cost=lambda text, args: text_cost(text) + weight(args))
STRINGS.add("strings.quote", _quote, "string -> string", cost=text_cost)
STRINGS.add("find", _find, "string @ string -> string", cost=regex_cost)
STRINGS.add(
    "findAll", _find_all, "string @ string -> list(string)", "string @ string, int -> list(string)", cost=regex_cost
)
