"""Macros: calls whose arguments are not values but expressions to be computed for each element."""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.apiserver.cel.errors import Issue
from pilothouse.apiserver.cel.syntax import Fold, Ident, Node, Select

__all__ = ["MACROS"]

_Expand = Callable[[int, Node | None, list[Node]], Node | None]


def _name(node: Node) -> str:
    if not isinstance(node, Ident):
        raise Issue(node.at, "argument must be a simple name")
    return node.name


def _has(at: int, _: Node | None, args: list[Node]) -> Node:
    node = args[0]
    if not isinstance(node, Select) or node.test or node.optional:
        raise Issue(args[0].at, "invalid argument to has() macro")
    return Select(node.at, node.operand, node.field, test=True)


def _fold(macro: str, names: int, *, filtered: bool = False) -> _Expand:
    """Return what expands a macro with so many variables, then a filter if it has one, then a body."""

    def expand(at: int, target: Node | None, args: list[Node]) -> Node:
        if target is None:
            raise TypeError("a member has a target")
        found = tuple(_name(arg) for arg in args[:names])
        if names == 2 and found[0] == found[1]:
            raise Issue(args[1].at, f"duplicate variable name: {found[1]}")
        return Fold(at, macro, target, found, args[-1], args[names] if filtered else None)

    return expand


MACROS: dict[tuple[str, int, bool], _Expand] = {
    ("has", 1, False): _has,
    ("all", 2, True): _fold("all", 1),
    ("all", 3, True): _fold("all", 2),
    ("exists", 2, True): _fold("exists", 1),
    ("exists", 3, True): _fold("exists", 2),
    ("exists_one", 2, True): _fold("exists_one", 1),
    ("existsOne", 2, True): _fold("exists_one", 1),
    ("existsOne", 3, True): _fold("exists_one", 2),
    ("map", 2, True): _fold("map", 1),
    ("map", 3, True): _fold("map", 1, filtered=True),
    ("filter", 2, True): _fold("filter", 1),
    ("transformList", 3, True): _fold("map", 2),
    ("transformList", 4, True): _fold("map", 2, filtered=True),
    ("transformMap", 3, True): _fold("transformMap", 2),
    ("transformMap", 4, True): _fold("transformMap", 2, filtered=True),
    ("transformMapEntry", 3, True): _fold("transformMapEntry", 2),
    ("transformMapEntry", 4, True): _fold("transformMapEntry", 2, filtered=True),
    ("optMap", 2, True): _fold("optMap", 1),
    ("optFlatMap", 2, True): _fold("optFlatMap", 1),
    ("sortBy", 2, True): _fold("sortBy", 1),
}
"""By name, number of arguments, and whether it is a member: what makes the node."""
