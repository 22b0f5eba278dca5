"""Finds the type of every node, and what does not fit; messages are those of cel-go's checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pilothouse.apiserver.cel.declarations import Functions, Overload
from pilothouse.apiserver.cel.errors import CelError, Issue
from pilothouse.apiserver.cel.library import TYPE_NAMES
from pilothouse.apiserver.cel.regex import PatternError, compile_pattern
from pilothouse.apiserver.cel.syntax import Call, Const, Fold, Ident, ListOf, Logic, MapOf, Node, Select, StructOf
from pilothouse.apiserver.cel.times import parse_duration, parse_timestamp
from pilothouse.apiserver.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    ERROR,
    INT,
    NULL,
    STRING,
    UINT,
    Bindings,
    Type,
    list_of,
    map_of,
    object_type,
    optional_of,
    type_of,
)
from pilothouse.apiserver.cel.values import Uint

__all__ = ["Checker"]

_CONSTANTS: dict[type, Type] = {
    bool: BOOL,
    int: INT,
    Uint: UINT,
    float: DOUBLE,
    str: STRING,
    bytes: BYTES,
    type(None): NULL,
}
_LITERALS: dict[str, Callable[[str], object]] = {
    "duration": parse_duration,
    "timestamp": parse_timestamp,
    "matches": compile_pattern,
}
_FIRST, _LAST = -62135596800, 253402300799
"""The seconds that a timestamp may have: the years 1 to 9999."""
_KEYS = frozenset({"int", "uint", "string", "bool", "dyn", "var", "error"})
_AGGREGATES = frozenset({"list", "map", "dyn", "error", "var"})


class Checker:
    """Checks one expression. `issues` are what it found; nodes get their types, calls their overloads."""

    def __init__(self, variables: Mapping[str, Type], functions: Functions, *, objects: bool = False) -> None:
        self.issues: list[Issue] = []
        self._scopes: list[Mapping[str, Type]] = [variables]
        self._functions = functions
        self._objects = objects
        self._bindings = Bindings()
        self._nodes: list[Node] = []

    def check(self, node: Node) -> Type:
        """Check a whole expression and return its type."""
        self._of(node)
        for each in self._nodes:
            each.type = self._bindings.final(each.type)
        return node.type

    def _fail(self, at: int, message: str) -> Type:
        self.issues.append(Issue(at, message))
        return ERROR

    def _of(self, node: Node) -> Type:
        node.type = self._typed(node)
        self._nodes.append(node)
        return node.type

    def _typed(self, node: Node) -> Type:
        match node:
            case Const():
                return _CONSTANTS[type(node.value)]
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case Logic():
                return self._logic(node)
            case ListOf():
                return self._list(node)
            case MapOf():
                return self._map(node)
            case StructOf():
                return self._struct(node)
            case Fold():
                return self._fold(node)
        raise TypeError(node)

    def _lookup(self, name: str) -> Type | None:
        for scope in reversed(self._scopes):
            if (found := scope.get(name)) is not None:
                return found
        return None

    def _ident(self, node: Ident) -> Type:
        if (found := self._lookup(node.name)) is not None:
            return found
        if node.name in TYPE_NAMES:
            return type_of(TYPE_NAMES[node.name][0])
        return self._fail(node.at, f"undeclared reference to '{node.name}' (in container '')")

    def _qualified(self, node: Select) -> Type | None:
        """Find a variable whose name has dots; turn the node's operand into it."""
        parts = [node.field]
        inner = node.operand
        while isinstance(inner, Select) and not inner.test and not inner.optional:
            parts.append(inner.field)
            inner = inner.operand
        if not isinstance(inner, Ident) or (node.test or node.optional):
            return None
        name = ".".join([inner.name, *reversed(parts)])
        found = self._lookup(name)
        if found is None and name in TYPE_NAMES:
            found = type_of(TYPE_NAMES[name][0])
        if found is not None:
            node.name = name
        return found

    def _select(self, node: Select) -> Type:
        if (found := self._qualified(node)) is not None:
            node.operand.type = ERROR
            return found
        operand = self._bindings.resolve(self._of(node.operand))
        optional = operand.kind == "opaque" and operand.name == "optional_type"
        if optional:
            operand = self._bindings.resolve(operand.params[0])
        result = self._field(node, operand)
        if node.test:
            return BOOL
        if result is ERROR:
            return ERROR
        return optional_of(result) if optional or node.optional else result

    def _field(self, node: Select, operand: Type) -> Type:
        node.name = node.field
        match operand.kind:
            case "dyn" | "error":
                return DYN
            case "var":
                return DYN
            case "map":
                return operand.params[1]
            case "object":
                field = operand.fields.get(node.field)
                if field is not None:
                    node.name = field.name
                    return field.type
                if operand.open:
                    return DYN
                return self._fail(node.at, f"undefined field '{node.field}'")
        return self._fail(node.at, f"type '{operand}' does not support field selection")

    def _logic(self, node: Logic) -> Type:
        types = [self._of(arg) for arg in node.args]
        for place, left, right in zip(node.places, types, types[1:], strict=False):
            if not all(self._bindings.assignable(BOOL, each) for each in (left, right)):
                shown = f"({self._show(left)}, {self._show(right)})"
                return self._fail(place, f"found no matching overload for '{node.function}' applied to '{shown}'")
        return BOOL

    def _show(self, given: Type) -> str:
        return str(self._bindings.final(given))

    def _call(self, node: Call) -> Type:
        if node.function == "_?_:_":
            return self._conditional(node)
        if node.function in {"or", "orValue"} and node.target is not None:
            return self._alternative(node)
        # The values that a text is formatted with may be of several types.
        mixed = node.function == "format" and node.target is not None
        types = [self._mixed(arg) if mixed and isinstance(arg, ListOf) else self._of(arg) for arg in node.arguments]
        overloads = self._functions.get((node.function, node.target is not None))
        if overloads is None:
            if node.target is None or (node.function, False) not in self._functions:
                return self._fail(node.at, f"undeclared reference to '{node.function}' (in container '')")
            overloads = []
        self._literal(node)
        return self._resolve(node, overloads, types)

    def _mixed(self, node: ListOf) -> Type:
        for item in node.items:
            self._of(item)
        node.type = list_of(DYN)
        self._nodes.append(node)
        return node.type

    def _literal(self, node: Call) -> None:
        """Refuse literal texts that can never be what a function wants of them."""
        read = _LITERALS.get(node.function)
        given = node.args[-1] if node.args else None
        if read is None or not isinstance(given, Const):
            return
        if not isinstance(given.value, str):
            if node.function == "timestamp" and type(given.value) is int and not _FIRST <= given.value <= _LAST:
                self._fail(given.at, "invalid timestamp argument")
            return
        try:
            read(given.value)
        except (CelError, PatternError):
            self._fail(given.at, f"invalid {node.function} argument")

    def _resolve(self, node: Call, overloads: Sequence[Overload], types: Sequence[Type]) -> Type:
        found: list[Overload] = []
        result: Type | None = None
        kept = self._bindings.snapshot()
        matched = kept
        for overload in overloads:
            if len(overload.params) != len(types):
                continue
            self._bindings.restore(dict(kept))
            *params, returned = self._bindings.renamed((*overload.params, overload.result))
            if all(self._bindings.assignable(param, given) for param, given in zip(params, types, strict=True)):
                found.append(overload)
                matched = self._bindings.snapshot()
                returned = self._bindings.resolve(returned)
                result = (
                    returned
                    if result is None or self._bindings.final(result).same(self._bindings.final(returned))
                    else DYN
                )
        self._bindings.restore(dict(matched) if len(found) == 1 else dict(kept))
        if result is None:
            return self._no_overload(node, types)
        node.overload = found
        return result if len(found) == 1 else self._bindings.final(result)

    def _no_overload(self, node: Call, types: Sequence[Type]) -> Type:
        if any(self._bindings.resolve(each) is ERROR for each in types):
            return ERROR
        shown = [self._show(each) for each in types]
        signature = f"{shown[0]}.({', '.join(shown[1:])})" if node.target is not None else f"({', '.join(shown)})"
        return self._fail(node.at, f"found no matching overload for '{node.function}' applied to '{signature}'")

    def _conditional(self, node: Call) -> Type:
        test, yes, no = (self._of(arg) for arg in node.args)
        if not self._bindings.assignable(BOOL, test):
            return self._no_overload(node, (test, yes, no))
        return self._joined(node, (test, yes, no), yes, no)

    def _joined(self, node: Call, all_types: Sequence[Type], left: Type, right: Type) -> Type:
        if not self._bindings.assignable(left, right):
            return self._no_overload(node, all_types)
        left, right = self._bindings.resolve(left), self._bindings.resolve(right)
        if left.kind == "dyn" or right.kind == "dyn":
            return DYN
        return right if left.kind == "null" else left

    def _alternative(self, node: Call) -> Type:
        types = [self._of(arg) for arg in node.arguments]
        if len(types) != 2:
            return self._no_overload(node, types)
        given, other = (self._bindings.resolve(each) for each in types)
        if given.kind == "dyn":
            return DYN
        if given is ERROR or given.name != "optional_type":
            return self._no_overload(node, types)
        wanted = given if node.function == "or" else given.params[0]
        return self._joined(node, types, wanted, other)

    def _list(self, node: ListOf) -> Type:
        element: Type | None = None
        for position, item in enumerate(node.items):
            given = self._of(item)
            if position in node.optional:
                given = self._unwrapped(item, given)
            element = self._same(item.at, element, given)
        return list_of(self._bindings.fresh() if element is None else element)

    def _unwrapped(self, node: Node, given: Type) -> Type:
        given = self._bindings.resolve(given)
        if given.kind == "opaque" and given.name == "optional_type":
            return given.params[0]
        if given.kind in {"dyn", "error"}:
            return DYN
        return self._fail(node.at, f"expected type 'optional_type({given})' but found '{given}'")

    def _same(self, at: int, first: Type | None, given: Type) -> Type:
        """Want all parts of a literal to have one type, as Kubernetes does."""
        if first is None:
            return given
        first, given = self._bindings.resolve(first), self._bindings.resolve(given)
        if "dyn" in (first.kind, given.kind):
            return DYN
        if not self._bindings.assignable(first, given):
            self._fail(at, f"expected type '{self._show(first)}' but found '{self._show(given)}'")
            return DYN
        return given if first.kind == "null" else first

    def _map(self, node: MapOf) -> Type:
        key: Type | None = None
        value: Type | None = None
        for name, item, optional in node.entries:
            given = self._of(name)
            if self._bindings.resolve(given).kind not in _KEYS:
                self._fail(name.at, f"unsupported map key type: {self._show(given)}")
            key = self._same(name.at, key, given)
            inner = self._of(item)
            value = self._same(item.at, value, self._unwrapped(item, inner) if optional else inner)
        return map_of(
            self._bindings.fresh() if key is None else key, self._bindings.fresh() if value is None else value
        )

    def _struct(self, node: StructOf) -> Type:
        for _, item, _ in node.entries:
            self._of(item)
        known = node.name in {"JSONPatch", "Object"} or node.name.startswith("Object.")
        if not self._objects or not known:
            return self._fail(node.at, f"undeclared reference to '{node.name}' (in container '')")
        return object_type(node.name, {}, unknown=True)

    def _fold(self, node: Fold) -> Type:
        given = self._bindings.resolve(self._of(node.range))
        if node.macro in {"optMap", "optFlatMap"}:
            return self._optional_fold(node, given)
        if given.kind == "var":
            self._bindings.assignable(given, DYN)
            given = DYN
        if given.kind not in _AGGREGATES:
            return self._fail(
                node.range.at,
                f"expression of type '{self._show(given)}' cannot be range of a comprehension"
                " (must be list, map, or dynamic)",
            )
        self._scopes.append(dict(zip(node.names, _elements(given, len(node.names)), strict=True)))
        if node.filter is not None:
            self._want_bool(node.filter, "_?_:_")
        body = self._of(node.body)
        self._scopes.pop()
        return self._folded(node, given, body)

    def _want_bool(self, node: Node, function: str) -> None:
        given = self._of(node)
        if not self._bindings.assignable(BOOL, given):
            self._fail(node.at, f"found no matching overload for '{function}' applied to '({self._show(given)})'")

    def _folded(self, node: Fold, given: Type, body: Type) -> Type:
        match node.macro:
            case "all" | "exists" | "exists_one" | "filter":
                if not self._bindings.assignable(BOOL, body):
                    function = {"all": "_&&_", "exists": "_||_"}.get(node.macro, "_?_:_")
                    shown = (
                        f"(bool, {self._show(body)})" if function != "_?_:_" else f"({self._show(body)}, list, list)"
                    )
                    return self._fail(node.body.at, f"found no matching overload for '{function}' applied to '{shown}'")
                if node.macro != "filter":
                    return BOOL
                return given if given.kind == "list" else list_of(_elements(given, 1)[0])
            case "map":
                return list_of(body)
            case "transformMap":
                return map_of(given.params[0] if given.kind == "map" else INT if given.kind == "list" else DYN, body)
            case "transformMapEntry":
                body = self._bindings.resolve(body)
                return body if body.kind == "map" else map_of(DYN, DYN)
        return given

    def _optional_fold(self, node: Fold, given: Type) -> Type:
        if given.kind not in {"dyn", "error"} and given.name != "optional_type":
            return self._fail(node.at, f"found no matching overload for 'hasValue' applied to '{self._show(given)}.()'")
        inner = given.params[0] if given.params else DYN
        self._scopes.append({node.names[0]: inner})
        body = self._of(node.body)
        self._scopes.pop()
        return body if node.macro == "optFlatMap" else optional_of(body)


def _elements(given: Type, count: int) -> tuple[Type, ...]:
    """Return the types of the iteration variables over a range."""
    if given.kind == "list":
        return (given.params[0],) if count == 1 else (INT, given.params[0])
    if given.kind == "map":
        return (given.params[0],) if count == 1 else given.params
    return (DYN,) * count
