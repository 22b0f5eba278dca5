"""The nodes of a parsed expression. Macros are nodes of their own, so that nothing has to recognise them again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pilothouse.apiserver.cel.types import DYN, Type

__all__ = ["Call", "Const", "Fold", "Ident", "ListOf", "Logic", "MapOf", "Node", "Select", "StructOf", "children"]


@dataclass(slots=True, eq=False)
class Node:
    """at: the offset of the place that errors name. type: set by the checker. depth: levels of nesting below."""

    at: int
    type: Type = field(default=DYN, kw_only=True)
    depth: int = field(default=1, kw_only=True)


@dataclass(slots=True, eq=False)
class Const(Node):
    """A literal."""

    value: Any


@dataclass(slots=True, eq=False)
class Ident(Node):
    """A variable or a type, by its full name."""

    name: str


@dataclass(slots=True, eq=False)
class Select(Node):
    """A field of an object. test: `has(x.f)`. optional: `x.?f`. name: of the field in the data."""

    operand: Node
    field: str
    test: bool = False
    optional: bool = False
    name: str = ""


@dataclass(slots=True, eq=False)
class Call(Node):
    """A call; operators have cel-go's names (`_+_`). `target` of member functions."""

    function: str
    target: Node | None
    args: list[Node]
    overload: Any = None

    @property
    def arguments(self) -> list[Node]:
        """All arguments, the target first."""
        return self.args if self.target is None else [self.target, *self.args]


@dataclass(slots=True, eq=False)
class Logic(Node):
    """A chain of `&&` or `||` with two operands or more."""

    function: str
    args: list[Node]
    places: list[int]


@dataclass(slots=True, eq=False)
class ListOf(Node):
    """A list literal; `optional` are the positions of `?` elements."""

    items: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class MapOf(Node):
    """A map literal."""

    entries: list[tuple[Node, Node, bool]]


@dataclass(slots=True, eq=False)
class StructOf(Node):
    """An object literal: `Object.spec{replicas: 3}`."""

    name: str
    entries: list[tuple[str, Node, bool]]


@dataclass(slots=True, eq=False)
class Fold(Node):
    """A macro over the elements of a range: `all`, `exists`, `map`, `transformMap`, ..., or `optMap`, `sortBy`.

    names: one or two iteration variables. filter, body: what is computed for each.
    """

    macro: str
    range: Node
    names: tuple[str, ...]
    body: Node
    filter: Node | None = None


def children(node: Node) -> list[Node]:
    """Return the nodes right below one."""
    match node:
        case Select():
            return [node.operand]
        case Call():
            return node.arguments
        case Logic():
            return node.args
        case ListOf():
            return node.items
        case MapOf():
            return [part for key, value, _ in node.entries for part in (key, value)]
        case StructOf():
            return [value for _, value, _ in node.entries]
        case Fold():
            return [node.range, *([node.filter] if node.filter else []), node.body]
    return []
