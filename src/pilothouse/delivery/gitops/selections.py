"""Fields picked out of objects to be ignored: JSON pointers, and the path expressions of jq that people use for it.

Of jq: `.a.b`, `.["a"]`, `.a[]`, `.a[0]`, `?`, `| select(.x == "y")` with ==, != and `and`, `or`, and several by commas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

__all__ = ["SelectionError", "remove_expression", "remove_pointer"]

Path: TypeAlias = tuple[str | int, ...]
_Step: TypeAlias = Callable[[Any], Iterator[Path]]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<op>==|!=|\.\.|[.\[\]()|,?]))"""
)
_MAX: Final = 2_000
_MISSING: Final = object()


class SelectionError(ValueError):
    """An expression that cannot be read; the text says why."""


def remove_pointer(obj: Any, pointer: str) -> None:
    """Take what a JSON pointer leads to out of an object, in place; `*` in it stands for each element of a list."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/")]
    if pointer:
        _remove(obj, parts)


def _remove(at: Any, parts: Sequence[str]) -> None:
    first, rest = parts[0], parts[1:]
    if isinstance(at, dict):
        if first in at and not rest:
            del at[first]
        elif first in at:
            _remove(at[first], rest)
    elif isinstance(at, list):
        if first == "*" and rest:
            for each in at:
                _remove(each, rest)
        elif first.isdigit() and int(first) < len(at):
            if rest:
                _remove(at[int(first)], rest)
            else:
                del at[int(first)]


def remove_expression(obj: Any, expression: str) -> None:
    """Take what an expression selects out of an object, in place, as jq's `del` does. Raises SelectionError."""
    paths = sorted(set(_parsed(expression)(obj)), key=lambda path: [(type(p) is str, p) for p in path], reverse=True)
    for path in paths:
        at = obj
        for part in path[:-1]:
            at = at[part]
        if path:
            del at[path[-1]]


def _at(obj: Any, path: Path) -> Any:
    for part in path:
        try:
            obj = obj[part]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return obj


@lru_cache(maxsize=512)
def _parsed(expression: str) -> _Step:
    if len(expression) > _MAX:
        raise SelectionError(f"jqPathExpressions: longer than {_MAX} characters")
    return _Parser(expression).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._wrong(text[at : at + 20])
            self._tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            at = found.end()
        self._next = 0

    def _wrong(self, what: str) -> SelectionError:
        return SelectionError(
            f"jqPathExpressions: {self._text!r}: {what!r} is not understood; known are paths with [] and ?, "
            "| select(.a == ...) with and, or, and commas. Use jsonPointers instead"
        )

    def _peek(self, value: str) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next][1] == value

    def _take(self, value: str) -> bool:
        if self._peek(value):
            self._next += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise self._wrong(self._tokens[self._next][1] if self._next < len(self._tokens) else "its end")

    def parse(self) -> _Step:
        found = self._commas()
        if self._next < len(self._tokens):
            raise self._wrong(self._tokens[self._next][1])
        return found

    def _commas(self) -> _Step:
        steps = [self._pipe()]
        while self._take(","):
            steps.append(self._pipe())
        return steps[0] if len(steps) == 1 else lambda obj: (path for step in steps for path in step(obj))

    def _pipe(self) -> _Step:
        parts = [self._term()]
        while self._take("|"):
            parts.append(self._term())

        def run(obj: Any) -> Iterator[Path]:
            paths: list[Path] = [()]
            for part in parts:
                paths = [(*path, *more) for path in paths for more in part(_at(obj, path))]
            yield from paths

        return run

    def _term(self) -> _Step:
        if self._take("("):
            inner = self._commas()
            self._expect(")")
            return inner
        if self._take("select"):
            self._expect("(")
            test = self._condition()
            self._expect(")")
            return lambda obj: iter([()]) if test(obj) else iter(())
        if not self._peek("."):
            raise self._wrong(self._tokens[self._next][1] if self._next < len(self._tokens) else "its end")
        return self._path()

    def _path(self) -> _Step:
        parts: list[str | int | None] = []
        while self._next < len(self._tokens):
            if self._take("."):
                kind, value = self._tokens[self._next] if self._next < len(self._tokens) else ("", "")
                if kind in {"name", "text"}:
                    self._next += 1
                    parts.append(json.loads(value) if kind == "text" else value)
            elif self._take("["):
                parts.append(self._index())
            elif not self._take("?"):
                break
        return lambda obj: _walk(obj, tuple(parts), ())

    def _index(self) -> str | int | None:
        if self._take("]"):
            return None
        kind, value = self._tokens[self._next] if self._next < len(self._tokens) else ("", "")
        if kind not in {"text", "number"}:
            raise self._wrong(value)
        self._next += 1
        self._expect("]")
        return json.loads(value) if kind == "text" else int(value)

    def _condition(self) -> Callable[[Any], bool]:
        left = self._both()
        while self._take("or"):
            left = _either(left, self._both())
        return left

    def _both(self) -> Callable[[Any], bool]:
        left = self._comparison()
        while self._take("and"):
            left = _all(left, self._comparison())
        return left

    def _comparison(self) -> Callable[[Any], bool]:
        if self._take("("):
            inner = self._condition()
            self._expect(")")
            return inner
        step = self._path() if self._peek(".") else None
        if step is None:
            raise self._wrong(self._tokens[self._next][1] if self._next < len(self._tokens) else "its end")
        for operator in ("==", "!="):
            if self._take(operator):
                wanted = self._literal()
                same = operator == "=="
                return lambda obj: any((_value(obj, path) == wanted) is same for path in step(obj))
        return lambda obj: any(_value(obj, path) not in {None, False} for path in step(obj))

    def _literal(self) -> Any:
        kind, value = self._tokens[self._next] if self._next < len(self._tokens) else ("", "its end")
        self._next += 1
        if kind in {"text", "number"} or value in {"true", "false", "null"}:
            return json.loads(value)
        raise self._wrong(value)


def _value(obj: Any, path: Path) -> Any:
    found = _at(obj, path)
    if found is _MISSING:
        return None
    return found if isinstance(found, str | int | float | bool | None) else json.dumps(found, sort_keys=True)


def _either(left: Callable[[Any], bool], right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda obj: left(obj) or right(obj)


def _all(left: Callable[[Any], bool], right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda obj: left(obj) and right(obj)


def _walk(obj: Any, parts: tuple[str | int | None, ...], path: Path) -> Iterator[Path]:
    if not parts:
        yield path
        return
    first, rest = parts[0], parts[1:]
    if first is None:
        if isinstance(obj, dict):
            for name, value in obj.items():
                yield from _walk(value, rest, (*path, name))
        elif isinstance(obj, list):
            for number, value in enumerate(obj):
                yield from _walk(value, rest, (*path, number))
    elif isinstance(first, str) and isinstance(obj, dict) and first in obj:
        yield from _walk(obj[first], rest, (*path, first))
    elif isinstance(first, int) and isinstance(obj, list) and -len(obj) <= first < len(obj):
        yield from _walk(obj[first], rest, (*path, first % len(obj)))
