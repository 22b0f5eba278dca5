"""Conditions of analysis templates, such as `result[0] >= 0.95 && !isNaN(result[0])`: the part of Expr that they use.

An expression is parsed once into nested closures. It has the operators of Expr on numbers, texts, lists and maps,
`all`, `any`, `none`, `one`, `filter`, `map` and `count` with `#` or `{# > 1}`, and the functions that analysis adds
(`asInt`, `asFloat`, `isNaN`, `isInf`, `isNil`, `default`); `now()` is what its values have as `now()`. There are no
loops, and its length and depth are bounded. `matches` is left out: a pattern may take for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from .operators import BINARY, FUNCTIONS, ExpressionError, within

__all__ = ["ExpressionError", "compiled"]

_LONGEST: Final = 4096
_DEEPEST: Final = 50
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|\?\?|\?\.|\.\.|==|!=|<=|>=|&&|\|\||[-+*/%^<>!?:.,()\[\]{}#]))"
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_OR, _AND, _UNARY, _POWER = 10, 15, 90, 100
_WORDS: Final = ("and", "or", "not", "in", "contains", "startsWith", "endsWith")

Values: TypeAlias = Mapping[str, Any]
Node: TypeAlias = Callable[[Values], Any]


@lru_cache(maxsize=1024)
def compiled(source: str) -> Callable[[Values], Any]:
    """Parse an expression; return what computes it from names' values. Both raise ExpressionError."""
    if len(source) > _LONGEST:
        raise ExpressionError(f"condition of {len(source)} characters: {_LONGEST} is the most")
    node = _Parser(source).whole()

    def run(values: Values) -> Any:
        try:
            return node(values)
        except ExpressionError as error:
            raise ExpressionError(f"condition '{source}': {error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ExpressionError(f"condition '{source}': {error}") from None

    return run


def _tokens(source: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = source.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"condition '{source}': character {at + 1}, '{text[at : at + 8]}', is not understood")
        kind = str(match.lastgroup)
        word = match.group(kind)
        found.append(("sign" if kind == "name" and word in _WORDS else kind, word))
        at = match.end()
    return found


def _each(test: Node, items: Iterable[Any], values: Values) -> list[Any]:
    return [test({**values, "#": item}) for item in items]


_OVER: Final[Mapping[str, Callable[[list[Any], list[Any]], Any]]] = {
    "all": lambda _, said: all(said),
    "any": lambda _, said: any(said),
    "none": lambda _, said: not any(said),
    "one": lambda _, said: sum(map(bool, said)) == 1,
    "count": lambda _, said: sum(map(bool, said)),
    "filter": lambda items, said: [item for item, kept in zip(items, said, strict=True) if kept],
    "map": lambda _, said: said,
}


class _Parser:
    """Reads by precedence: each method returns a closure of what it has read."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = _tokens(source)
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._ternary()
        if self._at < len(self._tokens):
            raise self._error(f"'{self._tokens[self._at][1]}' is not expected")
        return node

    def _error(self, why: str) -> ExpressionError:
        return ExpressionError(f"condition '{self._source}': {why}")

    def _peek(self) -> str:
        """Return the sign that comes; empty where something else comes."""
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "sign":
            return self._tokens[self._at][1]
        return ""

    def _take(self, sign: str) -> bool:
        if self._peek() == sign:
            self._at += 1
            return True
        return False

    def _want(self, sign: str) -> None:
        if not self._take(sign):
            found = f"'{self._tokens[self._at][1]}'" if self._at < len(self._tokens) else "the end"
            raise self._error(f"'{sign}' is expected, not {found}")

    def _ternary(self) -> Node:
        node = self._binary(0)
        if self._take("?"):
            yes = self._ternary()
            self._want(":")
            node = _choose(node, yes, self._ternary())
        return node

    def _binary(self, least: int) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"it is nested more than {_DEEPEST} deep")
        node = self._operators(least)
        self._depth -= 1
        return node

    def _operators(self, least: int) -> Node:
        left = self._unary()
        while True:
            sign = self._peek()
            if sign == "not" and self._tokens[self._at + 1 : self._at + 2] == [("sign", "in")] and least <= 20:
                self._at += 2
                left = _negated(_apply(within, left, self._binary(21)))
                continue
            logical = _LOGICAL.get(sign)
            rank = logical[0] if logical else BINARY[sign][0] if sign in BINARY else -1
            if rank < max(least, 0):
                return left
            self._at += 1
            right = self._binary(rank if rank == _POWER else rank + 1)
            left = logical[1](left, right) if logical else _apply(BINARY[sign][1], left, right)

    def _unary(self) -> Node:
        if self._take("!") or self._take("not"):
            return _negated(self._binary(_UNARY))
        if self._take("-"):
            inner = self._binary(_UNARY)
            return lambda values: -inner(values)
        if self._take("+"):
            return self._binary(_UNARY)
        return self._postfix(self._primary())

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._take("["):
                key = self._ternary()
                self._want("]")
                node = _item(node, key)
            elif self._peek() in (".", "?."):
                optional = self._peek() == "?."
                self._at += 1
                node = _member(node, self._name(), optional=optional)
            else:
                return node

    def _name(self) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] != "name":
            raise self._error("a name is expected after '.'")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _primary(self) -> Node:
        if self._at >= len(self._tokens):
            raise self._error("it ends too early")
        kind, word = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            digits = word.replace("_", "")
            return _constant(int(digits) if digits.isdigit() else float(digits))
        if kind == "text":
            return _constant(re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), word[1:-1]))
        if kind == "name":
            return self._named(word)
        if word == "(":
            node = self._ternary()
            self._want(")")
            return node
        if word == "[":
            items = self._list("]")
            return lambda values: [item(values) for item in items]
        if word == "#":
            return _variable("#")
        if word == ".":  # `.name` within a predicate is a member of the element
            return _member(_variable("#"), self._name(), optional=False)
        raise self._error(f"'{word}' is not expected")

    def _named(self, word: str) -> Node:
        if word in ("true", "false", "nil", "null"):
            return _constant({"true": True, "false": False}.get(word))
        if not self._take("("):
            return _variable(word)
        if word in _OVER:
            return self._predicate(_OVER[word])
        if word == "now":
            self._want(")")
            return _variable("now()")
        if word not in FUNCTIONS:
            raise self._error(f"there is no function '{word}'")
        function, arguments = FUNCTIONS[word], self._list(")")
        return lambda values: function(*(argument(values) for argument in arguments))

    def _predicate(self, over: Callable[[list[Any], list[Any]], Any]) -> Node:
        items = self._ternary()
        self._want(",")
        braces = self._take("{")
        test = self._ternary()
        if braces:
            self._want("}")
        self._want(")")

        def run(values: Values) -> Any:
            found = list(items(values) or ())
            return over(found, _each(test, found, values))

        return run

    def _list(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self._take(end):
            if found:
                self._want(",")
            found.append(self._ternary())
        return found


def _constant(value: Any) -> Node:
    return lambda _: value


def _variable(name: str) -> Node:
    def run(values: Values) -> Any:
        if name not in values:
            raise ExpressionError(f"there is no '{name}'")
        return values[name]

    return run


def _apply(function: Callable[[Any, Any], Any], left: Node, right: Node) -> Node:
    return lambda values: function(left(values), right(values))


def _negated(node: Node) -> Node:
    return lambda values: not _truth(node(values))


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{value!r} is no truth value")
    return value


def _both(left: Node, right: Node) -> Node:
    return lambda values: _truth(left(values)) and _truth(right(values))


def _either(left: Node, right: Node) -> Node:
    return lambda values: _truth(left(values)) or _truth(right(values))


def _otherwise(left: Node, right: Node) -> Node:
    def run(values: Values) -> Any:
        found = left(values)
        return right(values) if found is None else found

    return run


def _choose(test: Node, yes: Node, no: Node) -> Node:
    return lambda values: yes(values) if _truth(test(values)) else no(values)


def _item(node: Node, key: Node) -> Node:
    def run(values: Values) -> Any:
        found, at = node(values), key(values)
        return found.get(at) if isinstance(found, Mapping) else found[at]

    return run


def _member(node: Node, name: str, *, optional: bool) -> Node:
    def run(values: Values) -> Any:
        found = node(values)
        if found is None and optional:
            return None
        if not isinstance(found, Mapping):
            raise ExpressionError(f"{type(found).__name__} has no '{name}'")
        return found.get(name)

    return run


_LOGICAL: Final[Mapping[str, tuple[int, Callable[[Node, Node], Node]]]] = {
    "||": (_OR, _either),
    "or": (_OR, _either),
    "&&": (_AND, _both),
    "and": (_AND, _both),
    "??": (500, _otherwise),
}
