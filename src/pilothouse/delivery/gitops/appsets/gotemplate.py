"""The part of Go's text templates that is used: fields, variables, index, pipes, functions, if, with and range.

Not there: definitions of templates, comparisons of more than simple values, and most of sprig's functions; each is an
error that names it. Output, depth and steps are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pilothouse.delivery.gitops.errors import TemplateError

__all__ = ["FUNCTIONS", "expand", "expand_all", "normalized"]

_ACTION: Final = re.compile(
    r"\{\{(-)?(?:\s*/\*.*?\*/\s*|((?:\"(?:[^\"\\]|\\.)*\"|`[^`]*`|[^\"`}]|\}(?!\}))*))?(-)?\}\}",
    re.DOTALL,
)
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)"""
    r"""|(?P<variable>\$[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"""
    r"""|(?P<field>\$?(?:\.[A-Za-z_][A-Za-z0-9_]*)+|\$?\.)"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<op>[()|,:=]|\$))"""
)
_SETTING: Final = re.compile(
    r"\$(?P<first>[A-Za-z_]\w*)?(?:\s*,\s*\$(?P<second>[A-Za-z_]\w*))?\s*:=\s*(?P<rest>.*)", re.DOTALL
)
_MAX_OUTPUT: Final = 1 << 20
_MAX_STEPS: Final = 100_000
_MAX_DEPTH: Final = 50
_BLOCKS: Final = frozenset({"if", "with", "range"})


def _shown(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{name}:{_shown(each)}" for name, each in sorted(value.items())) + "]"
    return "[" + " ".join(map(_shown, value)) + "]"


def normalized(text: str) -> str:
    """Return a text as a DNS label: lower case, other characters as `-`, at most 253."""
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower())[:253].strip("-.")


def _slugify(*arguments: Any) -> str:
    limit, text = (int(arguments[0]), arguments[-1]) if len(arguments) > 1 else (50, arguments[-1])
    return re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9]+", "-", str(text).lower()))[:limit].strip("-")


def _index(at: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(at, Mapping):
            at = at.get(key)
        elif isinstance(at, Sequence) and not isinstance(at, str):
            if not isinstance(key, int) or not 0 <= key < len(at):
                raise TemplateError(f"index {key!r}: the list has {len(at)} elements")
            at = at[key]
        else:
            raise TemplateError(f"index {key!r}: {type(at).__name__} has no elements")
    return at


def _truth(value: Any) -> bool:
    return bool(value)


def _trunc(length: int, text: str) -> str:
    return text[length:] if length < 0 else text[:length]


def _quote(value: Any) -> str:
    return json.dumps(_shown(value), ensure_ascii=False)


def _default(given: Any, value: Any = None) -> Any:
    return value if _truth(value) else given


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "and": lambda *values: next((value for value in values if not _truth(value)), values[-1]),
    "or": lambda *values: next((value for value in values if _truth(value)), values[-1]),
    "not": lambda value: not _truth(value),
    "eq": lambda first, *rest: any(first == each for each in rest),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "index": _index,
    "len": len,
    "print": lambda *values: "".join(map(_shown, values)),
    "default": _default,
    "coalesce": lambda *values: next((value for value in values if _truth(value)), None),
    "ternary": lambda yes, no, test: yes if _truth(test) else no,
    "empty": lambda value: not _truth(value),
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "title": lambda text: str(text).title(),
    "trim": lambda text: str(text).strip(),
    "trimPrefix": lambda part, text: str(text).removeprefix(part),
    "trimSuffix": lambda part, text: str(text).removesuffix(part),
    "trimAll": lambda chars, text: str(text).strip(chars),
    "trunc": lambda length, text: _trunc(length, str(text)),
    "replace": lambda old, new, text: str(text).replace(old, new),
    "contains": lambda part, text: part in str(text),
    "hasPrefix": lambda part, text: str(text).startswith(part),
    "hasSuffix": lambda part, text: str(text).endswith(part),
    "has": lambda value, values: value in (values or ()),
    "hasKey": lambda values, key: key in (values or {}),
    "get": lambda values, key: (values or {}).get(key, ""),
    "quote": _quote,
    "squote": lambda value: f"'{_shown(value)}'",
    "join": lambda between, values: between.join(map(_shown, values)),
    "splitList": lambda between, text: str(text).split(between),
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "list": lambda *values: list(values),
    "toString": _shown,
    "toJson": lambda value: json.dumps(value, sort_keys=True),
    "int": lambda value: int(float(value or 0)),
    "add": lambda *values: sum(int(value) for value in values),
    "sub": lambda first, second: int(first) - int(second),
    "normalize": lambda text: normalized(str(text)),
    "slugify": _slugify,
}


def expand_all(template: Any, values: Mapping[str, Any], *, strict: bool = False) -> Any:
    """Return a template with all its texts expanded, keys of maps too. strict: a missing key is an error.

    Raises TemplateError.
    """
    if isinstance(template, str):
        return expand(template, values, strict=strict)
    if isinstance(template, Mapping):
        return {
            expand(name, values, strict=strict): expand_all(value, values, strict=strict)
            for name, value in template.items()
        }
    if isinstance(template, list | tuple):
        return [expand_all(each, values, strict=strict) for each in template]
    return template


def expand(text: str, values: Mapping[str, Any], *, strict: bool = False) -> str:
    """Return a text with its actions carried out. Raises TemplateError."""
    if "{{" not in text:
        return text
    return _Run(values, strict=strict).text(text)


class _Run:
    def __init__(self, values: Mapping[str, Any], *, strict: bool) -> None:
        self._root = values
        self._strict = strict
        self._variables: dict[str, Any] = {}
        self._steps = 0
        self._size = 0

    def text(self, text: str) -> str:
        parts = _split(text)
        made: list[str] = []
        end = self._block(parts, 0, self._root, made, 0, run=True)
        if end < len(parts):
            raise TemplateError(f"{text[:80]!r}: {parts[end][1]!r} without a beginning")
        return "".join(made)

    def _block(self, parts: list[tuple[str, str]], at: int, dot: Any, made: list[str], depth: int, *, run: bool) -> int:
        """Carry out parts up to an `else` or `end` that is not theirs; return where that is."""
        if depth > _MAX_DEPTH:
            raise TemplateError(f"blocks are nested deeper than {_MAX_DEPTH}")
        while at < len(parts):
            kind, content = parts[at]
            word = content.split(None, 1)[0] if kind == "action" and content else ""
            if word in {"end", "else"}:
                return at
            self._count()
            if kind == "text":
                if run:
                    self._put(made, content)
            elif word in _BLOCKS:
                outside = self._variables
                self._variables = dict(outside)
                at = self._branch(parts, at, dot, made, depth, run=run)
                self._variables = outside
                continue
            elif content and run:
                setting = _SETTING.fullmatch(content)
                if setting is not None and setting["first"] and not setting["second"]:
                    self._variables[setting["first"]] = self._value(setting["rest"], dot)
                else:
                    self._put(made, _shown(self._value(content, dot)))
            at += 1
        return at

    def _branch(
        self, parts: list[tuple[str, str]], at: int, dot: Any, made: list[str], depth: int, *, run: bool
    ) -> int:
        word, _, rest = parts[at][1].partition(" ")
        setting = _SETTING.fullmatch(rest.strip())
        value = self._value(setting["rest"] if setting else rest, dot) if run else None
        taken = run and _truth(value)
        if word == "range" and taken:
            end = at + 1
            for key, each in _elements(value):
                self._set(setting, key, each)
                end = self._block(parts, at + 1, each, made, depth + 1, run=True)
        else:
            self._set(setting, value, value)
            inner = value if word == "with" else dot
            end = self._block(parts, at + 1, inner, made, depth + 1, run=taken)
        if end >= len(parts):
            raise TemplateError(f"{parts[at][1]!r} has no end")
        otherwise = parts[end][1]
        if otherwise == "end":
            return end + 1
        condition = otherwise.removeprefix("else").strip()
        if condition:
            chained = [*parts[:end], ("action", condition), *parts[end + 1 :]]
            return self._branch(chained, end, dot, made, depth + 1, run=run and not taken)
        end = self._block(parts, end + 1, dot, made, depth + 1, run=run and not taken)
        if end >= len(parts) or parts[end][1] != "end":
            raise TemplateError(f"{parts[at][1]!r} has no end")
        return end + 1

    def _set(self, setting: re.Match[str] | None, key: Any, value: Any) -> None:
        """Set what a range or a condition names: `$key, $value`, or `$value` alone."""
        if setting is None:
            return
        first, second = setting["first"], setting["second"]
        if second:
            self._variables[second] = value
        if first:
            self._variables[first] = key if second else value

    def _count(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise TemplateError(f"the template takes more than {_MAX_STEPS} steps")

    def _put(self, made: list[str], text: str) -> None:
        self._size += len(text)
        if self._size > _MAX_OUTPUT:
            raise TemplateError(f"the template gives more than {_MAX_OUTPUT} characters")
        made.append(text)

    def _value(self, text: str, dot: Any) -> Any:
        tokens = _tokens(text)
        value, at = self._pipeline(tokens, 0, dot, text)
        if at < len(tokens):
            raise TemplateError(f"{{{{{text}}}}}: {tokens[at][1]!r} is not understood")
        return value

    def _pipeline(self, tokens: list[tuple[str, str]], at: int, dot: Any, text: str) -> tuple[Any, int]:
        value, at = self._command(tokens, at, dot, text, ())
        while at < len(tokens) and tokens[at][1] == "|":
            value, at = self._command(tokens, at + 1, dot, text, (value,))
        return value, at

    def _command(
        self, tokens: list[tuple[str, str]], at: int, dot: Any, text: str, piped: tuple[Any, ...]
    ) -> tuple[Any, int]:
        if at >= len(tokens):
            raise TemplateError(f"{{{{{text}}}}}: something is missing at its end")
        self._count()
        kind, word = tokens[at]
        if kind == "name" and word not in {"true", "false", "nil"}:
            function = FUNCTIONS.get(word)
            if function is None:
                raise TemplateError(
                    f"{{{{{text}}}}}: the function {word!r} is not known; there are {', '.join(FUNCTIONS)}"
                )
            arguments: list[Any] = []
            at += 1
            while at < len(tokens) and tokens[at][1] not in {"|", ")"}:
                value, at = self._operand(tokens, at, dot, text)
                arguments.append(value)
            return self._call(word, function, [*arguments, *piped], text), at
        if piped:
            raise TemplateError(f"{{{{{text}}}}}: {word!r} is no function")
        return self._operand(tokens, at, dot, text)

    def _call(self, name: str, function: Callable[..., Any], arguments: list[Any], text: str) -> Any:
        try:
            return function(*arguments)
        except TemplateError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever values a function was given
            raise TemplateError(f"{{{{{text}}}}}: {name}: {error}") from None

    def _operand(self, tokens: list[tuple[str, str]], at: int, dot: Any, text: str) -> tuple[Any, int]:
        kind, word = tokens[at]
        if word == "(":
            value, at = self._pipeline(tokens, at + 1, dot, text)
            if at >= len(tokens) or tokens[at][1] != ")":
                raise TemplateError(f"{{{{{text}}}}}: a parenthesis is not closed")
            at += 1
            if at < len(tokens) and tokens[at][0] == "field" and tokens[at][1].startswith("."):
                return self._field(value, tokens[at][1], text), at + 1
            return value, at
        if kind == "text":
            return word[1:-1] if word.startswith("`") else json.loads(word), at + 1
        if kind == "number":
            return float(word) if "." in word else int(word), at + 1
        if kind in {"variable", "field"}:
            return self._path(word, dot, text), at + 1
        if word in {"true", "false", "nil"}:
            return {"true": True, "false": False, "nil": None}[word], at + 1
        if kind == "name" and word in FUNCTIONS:
            return self._call(word, FUNCTIONS[word], [], text), at + 1
        raise TemplateError(f"{{{{{text}}}}}: {word!r} is not understood")

    def _path(self, word: str, dot: Any, text: str) -> Any:
        """Return what a field of `.`, of `$` or of a variable is."""
        name, dotted, path = word.partition(".")
        if name in {"", "$"}:
            return self._field(self._root if name else dot, path, text)
        if name[1:] not in self._variables:
            raise TemplateError(f"{{{{{text}}}}}: there is no variable '{name}'")
        return self._field(self._variables[name[1:]], dotted + path, text)

    def _field(self, at: Any, path: str, text: str) -> Any:
        for name in filter(None, path.split(".")):
            if isinstance(at, Mapping) and name in at:
                at = at[name]
            elif self._strict or not (isinstance(at, Mapping) or at is None):
                raise TemplateError(f"{{{{{text}}}}}: there is no {name!r}")
            else:
                at = None
        return at


def _elements(value: Any) -> list[tuple[Any, Any]]:
    """Return what a range goes over, with keys or positions."""
    if isinstance(value, Mapping):
        return sorted(value.items())
    return list(enumerate(value or ()))


def _split(text: str) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    at, trims = 0, False
    for found in _ACTION.finditer(text):
        before = text[at : found.start()]
        before = before.lstrip() if trims else before
        parts.append(("text", before.rstrip() if found[1] else before))
        content = (found[2] or "").strip()
        trims = bool(found[3]) or content.endswith(" -")
        parts.append(("action", content.removesuffix(" -").strip()))
        at = found.end()
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError(f"{text[:80]!r}: an action is not closed")
    parts.append(("text", rest.lstrip() if trims else rest))
    return parts


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None or (match.lastgroup == "op" and match["op"] not in {"(", ")", "|"}):
            raise TemplateError(f"{{{{{text}}}}}: {text[at : at + 20]!r} is not understood")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return found
