"""Estimates what an expression may cost at most, from the sizes that its types allow.

The rules are those by which Kubernetes decides whether a rule may stand in a definition, so that a definition it takes
is taken here and one it refuses is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pilothouse.apiserver.cel.sizes import AUTHORIZATION, LIST, MAP, STRUCT
from pilothouse.apiserver.cel.syntax import Call, Const, Fold, Ident, ListOf, Logic, MapOf, Node, Select, StructOf

__all__ = ["UNBOUNDED", "estimate"]

UNBOUNDED = (1 << 64) - 1
"""What cannot be bounded; sums and products stop there."""
_TEXT = 0.1
_PATTERN = 0.25
_SCALARS = frozenset({"bool", "int", "uint", "double", "null", "timestamp", "duration"})
_Size = tuple[int, int]
_UNKNOWN: _Size = (0, UNBOUNDED)


def _capped(value: int) -> int:
    return min(value, UNBOUNDED)


def _by(size: int, factor: float) -> int:
    """Multiply a size by a factor and round up."""
    product = size * factor
    return UNBOUNDED if product >= UNBOUNDED else math.ceil(product)


def estimate(node: Node) -> int:
    """Return the most that one evaluation of a checked expression costs; `UNBOUNDED` at most."""
    return _Estimate().cost(node)


class _Estimate:
    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._elements: dict[int, _Size] = {}
        self._locals: list[dict[str, tuple[_Size | None, _Size | None]]] = []

    def cost(self, node: Node) -> int:
        """Return what a node costs at most."""
        match node:
            case Const():
                return 0
            case Ident():
                return 1
            case Select():
                return self._select(node)
            case Logic():
                return _capped(sum(map(self.cost, node.args)))
            case ListOf():
                total = LIST + sum(map(self.cost, node.items))
                self._note_elements(node, node.items)
                return _capped(total)
            case MapOf():
                total = MAP + sum(self.cost(key) + self.cost(value) for key, value, _ in node.entries)
                self._note_elements(node, [value for _, value, _ in node.entries])
                return _capped(total)
            case StructOf():
                return _capped(STRUCT + sum(self.cost(value) for _, value, _ in node.entries))
            case Fold():
                return _capped(self._fold(node))
            case Call():
                return _capped(self._call(node))
        return 0

    def _note_elements(self, node: Node, parts: Sequence[Node]) -> None:
        sizes = [self.size(part) for part in parts]
        low, high = min((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0)
        self._elements[id(node)] = (low, high)

    def _select(self, node: Select) -> int:
        inner = self.cost(node.operand) if node.operand.type.kind != "error" else 1
        if node.operand.type.kind == "error":
            return inner
        counts = not node.test and node.operand.type.kind in {"map", "object", "var"}
        return inner + counts + (1 if node.optional else 0)

    def size(self, node: Node) -> _Size:
        """Return how small and how large a value may be."""
        if (found := self._sizes.get(id(node))) is not None:
            return found
        if isinstance(node, Const):
            size = len(node.value) if isinstance(node.value, (str, bytes)) else 1
            return size, size
        if isinstance(node, ListOf):
            return len(node.items), len(node.items)
        if isinstance(node, MapOf):
            return len(node.entries), len(node.entries)
        # Of a key written as a field the bounds of the map's values are not looked up.
        by_field = isinstance(node, Select) and node.operand.type.kind == "map"
        if node.type.max_size is not None and not by_field:
            return 0, node.type.max_size
        if isinstance(node, Ident):
            for scope in reversed(self._locals):
                if node.name in scope:
                    known = scope[node.name][0]
                    if known is not None:
                        return known
                    break
        return (1, 1) if node.type.kind in _SCALARS else _UNKNOWN

    def _element(self, node: Node) -> _Size | None:
        """Return the size of a container's elements where it was computed."""
        if (found := self._elements.get(id(node))) is not None:
            return found
        if isinstance(node, Ident):
            for scope in reversed(self._locals):
                if node.name in scope:
                    return scope[node.name][1]
        return None

    def _element_size(self, node: Node) -> _Size:
        """Return the size of a container's elements by its type, or as computed."""
        element = node.type.params[-1] if node.type.params else None
        if element is not None and element.max_size is not None:
            return 0, element.max_size
        return self._element(node) or _UNKNOWN

    def _fold(self, node: Fold) -> int:
        over = self.cost(node.range)
        count = self.size(node.range)
        self._locals.append({name: (self._element(node.range), None) for name in node.names})
        body = self.cost(node.body)
        test = self.cost(node.filter) if node.filter is not None else 0
        element = self.size(node.body)
        self._locals.pop()
        if node.macro in {"optMap", "optFlatMap"}:
            return 2 * over + body + LIST + 5
        start, turn, end = _TURNS[node.macro]
        if node.macro in {"map", "filter", "sortBy", "transformMap", "transformMapEntry"}:
            self._sizes[id(node)] = (0, count[1])
            inner = self._element(node.range) if node.macro in {"filter", "sortBy"} else element
            if inner is not None:
                self._elements[id(node)] = inner
        return over + start + count[1] * (turn + body + test) + end

    def _call(self, node: Call) -> int:
        args = node.arguments
        costs = [self.cost(arg) for arg in args]
        if node.function == "_?_:_":
            yes, no = self.size(args[1]), self.size(args[2])
            self._sizes[id(node)] = (min(yes[0], no[0]), max(yes[1], no[1]))
            return costs[0] + max(costs[1], costs[2])
        special = _CALLS.get(node.function)
        own = special(self, node, args) if special is not None else None
        if node.function in {"_[_]", "_[?_]"}:
            self._indexed(node, args[0])
        return sum(costs) + (1 if own is None else own)

    def _indexed(self, node: Call, holder: Node) -> None:
        if holder.type.params:
            self._sizes[id(node)] = self._element_size(holder)

    # What single functions cost. Each returns None for the usual 1.

    def _compared(self, _: Call, args: Sequence[Node]) -> int | None:
        kinds = {arg.type.kind for arg in args}
        if kinds == {"opaque"}:
            return 1
        return _by(min(self.size(args[0])[1], self.size(args[1])[1]), _TEXT)

    def _ordered(self, node: Call, args: Sequence[Node]) -> int | None:
        if {arg.type.kind for arg in args} & {"string", "bytes", "dyn"}:
            return self._compared(node, args)
        return None

    def _added(self, node: Call, args: Sequence[Node]) -> int | None:
        kinds = {arg.type.kind for arg in args}
        if not kinds & {"string", "bytes", "list"}:
            return None
        (low, high), (other_low, other_high) = self.size(args[0]), self.size(args[1])
        self._sizes[id(node)] = (low + other_low, _capped(high + other_high))
        one, two = self._element(args[0]), self._element(args[1])
        if one is not None and two is not None:
            self._elements[id(node)] = (min(one[0], two[0]), max(one[1], two[1]))
        return None if "list" in kinds else _by(_capped(high + other_high), _TEXT)

    def _in(self, _: Call, args: Sequence[Node]) -> int | None:
        return self.size(args[1])[1] if args[1].type.kind == "list" else None

    def _argument(self, _: Call, args: Sequence[Node]) -> int:
        return _by(self.size(args[1])[1], _TEXT)

    def _first(self, node: Call, args: Sequence[Node]) -> int:
        self._sizes[id(node)] = self.size(args[0])
        return _by(self.size(args[0])[1], _TEXT)

    def _first_only(self, _: Call, args: Sequence[Node]) -> int:
        return _by(self.size(args[0])[1], _TEXT)

    def _twice(self, node: Call, args: Sequence[Node]) -> int:
        self._sizes[id(node)] = (0, self.size(args[0])[1])
        return _by(self.size(args[0])[1], 2 * _TEXT)

    def _replaced(self, node: Call, args: Sequence[Node]) -> int:
        size, old, new = self.size(args[0]), self.size(args[1]), self.size(args[2])
        if old[0] == 0:
            most = _capped((size[1] + 1) * new[1] + size[1])
        elif new[1] <= old[0]:
            most = size[1]
        else:
            most = _capped(-(-size[1] // old[0]) * new[1])
        self._sizes[id(node)] = (0, most)
        return _by(size[1], 2 * _TEXT)

    def _joined(self, node: Call, args: Sequence[Node]) -> int:
        listed = self.size(args[0])
        total = listed[1] * self._element_size(args[0])[1]
        if len(args) > 1 and listed[1]:
            total += self.size(args[1])[1] * (listed[1] - 1)
        self._sizes[id(node)] = (0, _capped(total))
        return _by(_capped(total), _TEXT)

    def _matched(self, node: Call, args: Sequence[Node]) -> int | None:
        if node.target is None:
            return None
        text = _by(_capped(self.size(args[0])[1] + 1), _TEXT)
        if node.function in {"find", "findAll"}:
            self._sizes[id(node)] = (0, self.size(args[0])[1])
        return _capped(text * _by(self.size(args[1])[1], _PATTERN))

    def _contained(self, _: Call, args: Sequence[Node]) -> int:
        return _capped(_by(self.size(args[0])[1], _TEXT) * _by(self.size(args[1])[1], _TEXT))

    def _traversed(self, _: Call, args: Sequence[Node]) -> int:
        found = args[0]
        if found.type.kind != "list":
            return _by(self.size(found)[1], _TEXT)
        each = 1
        if found.type.params[0].kind in {"string", "bytes"}:
            each += _by(self._element_size(found)[1], _TEXT)
        return _capped(self.size(found)[1] * each)

    def _pairs(self, _: Call, args: Sequence[Node]) -> int:
        return _capped(self.size(args[0])[1] * self.size(args[1])[1] + 1)

    def _validated(self, _: Call, args: Sequence[Node]) -> int:
        return _by(_by(self.size(args[1])[1], _TEXT), 128 * _PATTERN)

    def _checked(self, _: Call, args: Sequence[Node]) -> int:
        return AUTHORIZATION

    def _unwrapped(self, node: Call, args: Sequence[Node]) -> None:
        self._sizes[id(node)] = self.size(args[0])

    def _contains_address(self, node: Call, args: Sequence[Node]) -> int:
        base = 4 if node.function == "containsIP" else 7
        return base + (_by(self.size(args[1])[1], _TEXT) if args[1].type.kind == "string" else 0)


# Of each macro: what it costs to begin, each turn beside its body, and to end.
_TURNS = {
    "all": (0, 3, 1),
    "exists": (0, 4, 1),
    "exists_one": (0, 2, 2),
    "filter": (LIST, 3 + LIST, 1),
    "map": (LIST, 2 + LIST, 1),
    "sortBy": (LIST, 2 + LIST, 2),
    "transformMap": (MAP, 3, 1),
    "transformMapEntry": (MAP, 2, 1),
}
_Run = Callable[[_Estimate, Call, Sequence[Node]], "int | None"]
_CALLS: dict[str, _Run] = {
    **dict.fromkeys(("_==_", "_!=_"), _Estimate._compared),
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _Estimate._ordered),
    "_+_": _Estimate._added,
    "@in": _Estimate._in,
    **dict.fromkeys(("startsWith", "endsWith"), _Estimate._argument),
    **dict.fromkeys(("url", "lowerAscii", "upperAscii", "substring", "trim", "jsonpatch.escapeKey"), _Estimate._first),
    **dict.fromkeys(("quantity", "isQuantity", "semver", "isSemver", "cidr", "isIP", "isCIDR"), _Estimate._first_only),
    **dict.fromkeys(("format", "strings.quote"), _Estimate._first_only),
    **dict.fromkeys(("split", "ip.isCanonical"), _Estimate._twice),
    "replace": _Estimate._replaced,
    "join": _Estimate._joined,
    **dict.fromkeys(("matches", "find", "findAll"), _Estimate._matched),
    "contains": _Estimate._contained,
    **dict.fromkeys(
        (
            "isSorted",
            "sum",
            "max",
            "min",
            "indexOf",
            "lastIndexOf",
            "includes",
            "distinct",
            "reverse",
            "sort",
            "flatten",
        ),
        _Estimate._traversed,
    ),
    **dict.fromkeys(("sets.contains", "sets.equivalent", "sets.intersects"), _Estimate._pairs),
    "validate": _Estimate._validated,
    "check": _Estimate._checked,
    "dyn": _Estimate._unwrapped,
    **dict.fromkeys(("containsIP", "containsCIDR"), _Estimate._contains_address),
}
