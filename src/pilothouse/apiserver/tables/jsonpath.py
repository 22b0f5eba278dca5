r"""Kubernetes' dialect of JSONPath, as printer columns use it: compiled once, run on each object.

`.spec.size`, `.spec['a\.b']`, `.items[0]`, `[-1]`, `[0:2]`, `[*]`, `.*`, `..name`, `['a','b']` and
`[?(@.type=="Ready")]`. A field that is not there gives nothing; what cannot be done (an index out of bounds, a filter
on what is no list, values of different types compared) raises JsonPathError.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

__all__ = ["JsonPath", "JsonPathError", "compile_path"]

Step: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Takes the values found so far and gives those that the step leads to."""

_MEMO: Final = 1024
_LONGEST: Final = 4096
_DEPTH: Final = 64
"""Levels of filters in filters; deeper ones are hostile."""
_SLICE: Final = re.compile(r"(-?\d*)(:-?\d*)?(:-?\d*)?")
_KEY: Final = re.compile(r"'([^']*)'")
_COMPARISON: Final = re.compile(r"([^!<>=]+)([!<>=]+)(.+?)")
_TERMINATORS: Final = frozenset(" \t\r\n.,[]$@{}")
_NUMBER: Final = re.compile(r"[+-]?[0-9.]*")
_WORD: Final = re.compile(r"[^ \t\r\n.,\[\]$@{}]+")
_ESCAPE: Final = re.compile(r"\\(.)")
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITY: Final = ("==", "!=")


class JsonPathError(ValueError):
    """A path cannot be read, or cannot be followed in an object."""


class JsonPath:
    """A compiled path."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str, steps: Sequence[Step]) -> None:
        self.text: Final = text
        self._steps: Final = tuple(steps)

    def find(self, value: Any) -> Sequence[Any]:
        """Return all values that the path leads to. Raises JsonPathError."""
        return _follow(self._steps, [value])


def _follow(steps: Iterable[Step], values: Sequence[Any]) -> Sequence[Any]:
    for step in steps:
        values = step(values)
    return values


def compile_path(text: str) -> JsonPath:
    """Compile a path. Raises JsonPathError."""
    if len(text) > _LONGEST:
        raise JsonPathError(f"a path has at most {_LONGEST} characters, not {len(text)}")
    return _compiled(text)


@lru_cache(maxsize=_MEMO)
def _compiled(text: str) -> JsonPath:
    return JsonPath(text, _Parser(text, 0).steps())


def _field(name: str) -> Step:
    def step(values: Sequence[Any]) -> Sequence[Any]:
        return [value[name] for value in values if isinstance(value, dict) and name in value]

    return step


def _text(value: Any) -> Step:
    def step(values: Sequence[Any]) -> Sequence[Any]:
        return [value for _ in values] or [value]

    return step


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _wildcard(values: Sequence[Any]) -> Sequence[Any]:
    return [child for value in values for child in _children(value)]


def _recursive(values: Sequence[Any]) -> Sequence[Any]:
    found: list[Any] = []
    waiting = list(reversed(values))
    while waiting:
        value = waiting.pop()
        children = list(_children(value))
        if children:
            found.append(value)
            waiting.extend(reversed(children))
    return found


def _union(branches: Sequence[Sequence[Step]]) -> Step:
    def step(values: Sequence[Any]) -> Sequence[Any]:
        return [found for branch in branches for found in _follow(branch, values)]

    return step


def _elements(value: Any) -> list[Any] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise JsonPathError(f"{type(value).__name__} is not array or slice")
    return value


def _index(place: int) -> Step:
    def step(values: Sequence[Any]) -> Sequence[Any]:
        found = []
        for value in values:
            listed = _elements(value)
            if listed is None:
                continue
            if not -len(listed) <= place < len(listed):
                raise JsonPathError(f"array index out of bounds: index {place}, length {len(listed)}")
            found.append(listed[place])
        return found

    return step


def _slice(start: int | None, end: int | None, stride: int | None) -> Step:
    if stride is not None and stride < 1:
        raise JsonPathError("step must be > 0")

    def step(values: Sequence[Any]) -> Sequence[Any]:
        found: list[Any] = []
        for value in values:
            listed = _elements(value)
            if listed is None:
                continue
            size = len(listed)
            first = 0 if start is None else start + size if start < 0 else start
            last = size if end is None else end + size if end < 0 else end
            if first != last and (not 0 <= first < size or not first < last <= size):
                raise JsonPathError(f"array index out of bounds: index {first}, length {size}")
            found += listed[first : last : stride or 1]
        return found

    return step


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return type(value).__name__


def _compare(word: str, left: Any, right: Any) -> bool:
    kind = _kind(left)
    if kind != _kind(right) or kind not in ("str", "int", "float", "bool"):
        raise JsonPathError("incompatible types for comparison")
    if kind == "bool" and word not in _EQUALITY:
        raise JsonPathError("invalid type for comparison")
    return _OPERATORS[word](left, right)


def _one(values: Sequence[Any]) -> Any:
    if len(values) != 1:
        raise JsonPathError("can only compare one element at a time")
    return values[0]


def _filter(left: Sequence[Step], word: str, right: Sequence[Step]) -> Step:
    if word and word not in _OPERATORS:
        raise JsonPathError(f"unrecognized filter operator {word}")

    def passes(element: Any) -> bool:
        found = _follow(left, [element])
        if not word or not found:
            return bool(found)
        return _compare(word, _one(found), _one(_follow(right, [element])))

    def step(values: Sequence[Any]) -> Sequence[Any]:
        return [one for value in values for one in _elements(value) or () if passes(one)]

    return step


class _Parser:
    """Reads a path from left to right."""

    def __init__(self, text: str, depth: int) -> None:
        if depth > _DEPTH:
            raise JsonPathError(f"filters nest at most {_DEPTH} levels deep")
        self._rest = text
        self._depth = depth
        self._made: list[Step] = []

    def steps(self) -> list[Step]:
        """Return all steps."""
        while self._rest:
            self._next()
        return self._made

    def _inner(self, text: str) -> list[Step]:
        return _Parser(text, self._depth + 1).steps()

    def _next(self) -> None:
        rest = self._rest
        first = rest[0]
        if rest.startswith("[?("):
            self._read_filter()
        elif rest.startswith(".."):
            self._made.append(_recursive)
            self._rest = rest[2:]
            if self._rest[:1].isalnum() or self._rest[:1] == "_":
                self._read_field()
        elif first in " @$":
            self._rest = rest[1:]
        elif first == "[":
            self._read_brackets()
        elif first in "\"'":
            self._read_quoted(first)
        elif first == ".":
            self._rest = rest[1:]
            self._read_field()
        elif first in "+-" or first.isdigit():
            self._read_number()
        elif first.isalpha() or first == "_":
            self._read_word()
        else:
            raise JsonPathError(f"unrecognized character in action: {first!r}")

    def _read_field(self) -> None:
        rest, place = self._rest, 0
        while place < len(rest) and rest[place] not in _TERMINATORS:
            place += 2 if rest[place] == "\\" else 1
        name, self._rest = rest[:place], rest[place:]
        self._made.append(_wildcard if name == "*" else _field(name.replace("\\", "")))

    def _read_number(self) -> None:
        match = _NUMBER.match(self._rest)
        word = match[0] if match else ""
        try:
            value: float = int(word) if "." not in word else float(word)
        except ValueError:
            raise JsonPathError(f"cannot parse number {word}") from None
        self._made.append(_text(value))
        self._rest = self._rest[len(word) :]

    def _read_word(self) -> None:
        match = _WORD.match(self._rest)
        word = match[0] if match else ""
        if word not in ("true", "false"):
            raise JsonPathError(f"unrecognized identifier {word}")
        self._made.append(_text(word == "true"))
        self._rest = self._rest[len(word) :]

    def _read_quoted(self, quote: str) -> None:
        end = self._rest.find(quote, 1)
        while end > 0 and self._rest[end - 1] == "\\":
            end = self._rest.find(quote, end + 1)
        if end < 0:
            raise JsonPathError("unterminated quoted string")
        self._made.append(_text(_ESCAPE.sub(r"\1", self._rest[1:end])))
        self._rest = self._rest[end + 1 :]

    def _read_brackets(self) -> None:
        inside, closed, self._rest = self._rest[1:].partition("]")
        if not closed or "\n" in inside:
            raise JsonPathError("unterminated array")
        parts = inside.split(",")
        if len(parts) > 1:
            self._made.append(_union([self._inner(f"[{part.strip(' ')}]") for part in parts]))
        elif key := _KEY.fullmatch(inside):
            self._made += self._inner(f".{key[1]}")
        else:
            self._made.append(_array(inside))

    def _read_filter(self) -> None:
        inside = self._filter_text()
        compared = _COMPARISON.fullmatch(inside)
        if compared is None:
            self._made.append(_filter(self._inner(inside), "", ()))
        else:
            self._made.append(_filter(self._inner(compared[1]), compared[2], self._inner(compared[3])))

    def _filter_text(self) -> str:
        """Cut out what stands between `[?(` and `)]`."""
        rest, quote, quoted = self._rest, "", False
        for place in range(3, len(rest)):
            sign = rest[place]
            if sign == "\n":
                break
            if sign in "\"'" and not quote:
                quote = sign
            elif quote and sign == quote and rest[place - 1] != "\\":
                quoted = True
            elif sign == ")" and bool(quote) == quoted:
                if rest[place + 1 : place + 2] != "]":
                    raise JsonPathError("unclosed array expect ]")
                self._rest = rest[place + 2 :]
                return rest[3:place]
        raise JsonPathError("unterminated filter")


def _array(inside: str) -> Step:
    text = ":" if inside == "*" else inside
    match = _SLICE.fullmatch(text)
    if match is None:
        raise JsonPathError(f"invalid array index {text}")
    if match[2] is None:
        if match[1] in ("", "-"):
            raise JsonPathError(f"array index {text} is not a number")
        return _index(int(match[1]))
    bounds = [match[1], match[2][1:], (match[3] or ":")[1:]]
    if "-" in bounds:
        raise JsonPathError(f"array index {text} is not a number")
    return _slice(*(int(bound) if bound else None for bound in bounds))
