"""Turns checked nodes into closures, which count what they cost.

A closure takes a frame: the meter, the variables, then the iteration variables. What a program costs whatever the
values is counted once when it starts, and what a loop's body costs once for each turn; functions whose cost goes by the
size of their arguments count that before they run. So nothing runs long, and cheap expressions hardly count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilothouse.apiserver.cel.calls import call_of
from pilothouse.apiserver.cel.errors import CelError, CostExceededError
from pilothouse.apiserver.cel.folds import fold_of
from pilothouse.apiserver.cel.library import TYPE_NAMES
from pilothouse.apiserver.cel.sizes import LIST, MAP, STRUCT
from pilothouse.apiserver.cel.syntax import Call, Const, Fold, Ident, ListOf, Logic, MapOf, Node, Select, StructOf
from pilothouse.apiserver.cel.values import NONE, Optional, TypeValue

__all__ = ["Meter", "build"]

Run = Callable[[list[Any]], Any]
_FAILURES = (CelError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError)


class Meter:
    """Counts what one evaluation costs."""

    __slots__ = ("limit", "spent")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0

    def spend(self, cost: int) -> None:
        """Count. Raises CostExceededError over the limit."""
        self.spent += cost
        if self.spent > self.limit:
            raise CostExceededError


def build(root: Node, variables: frozenset[str]) -> tuple[Callable[[Mapping[str, Any], Meter], Any], tuple[str, ...]]:
    """Return what evaluates a checked expression, and the variables that it names."""
    # Iteration variables come after the variables, whose number is known only after a first round.
    first = Builder(variables)
    first.of(root)
    names = tuple(first.slots)
    run, fixed, extra = Builder(variables, names).of(root), fixed_cost(root), [None] * first.locals

    def evaluate(values: Mapping[str, Any], meter: Meter) -> Any:
        meter.spend(fixed)
        try:
            frame = [meter, *[values[name] for name in names], *extra]
        except KeyError as error:
            raise CelError(f"no such attribute(s): {error.args[0]}") from None
        return run(frame)

    return evaluate, names


def fixed_cost(node: Node) -> int:
    """Return what a node costs whatever its values, loops counted once and without their bodies."""
    match node:
        case Ident():
            return 1
        case Select():
            return fixed_cost(node.operand) + (0 if node.test else 1)
        case Call():
            return sum(map(fixed_cost, node.arguments)) + (0 if node.function == "_?_:_" else 1)
        case Logic():
            return sum(map(fixed_cost, node.args))
        case ListOf():
            return LIST + sum(map(fixed_cost, node.items))
        case MapOf():
            return MAP + sum(fixed_cost(key) + fixed_cost(value) for key, value, _ in node.entries)
        case StructOf():
            return STRUCT + sum(fixed_cost(value) for _, value, _ in node.entries)
        case Fold():
            return 1 + fixed_cost(node.range)
    return 0


class Builder:
    """Builds closures for one expression; `slots` are the variables named, each with its place in the frame."""

    def __init__(self, variables: frozenset[str], names: tuple[str, ...] = ()) -> None:
        self.slots: dict[str, int] = {name: place for place, name in enumerate(names, 1)}
        self.locals = 0
        self.offset = 1 + len(names)
        self._variables = variables
        self._scopes: list[dict[str, int]] = []

    def of(self, node: Node) -> Run:
        """Return the closure of a node."""
        match node:
            case Const():
                value = node.value
                return lambda frame: value
            case Ident():
                return self._ident(node.name)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case Logic():
                runs = [self.of(arg) for arg in node.args]
                return _both(runs) if node.function == "_&&_" else _either(runs)
            case ListOf():
                return self._list(node)
            case MapOf():
                return self._map(node)
            case StructOf():
                return self._struct(node)
            case Fold():
                return self._fold(node)
        raise TypeError(node)

    def _ident(self, name: str) -> Run:
        for scope in reversed(self._scopes):
            if name in scope:
                place = scope[name]
                return lambda frame: frame[place]
        if name not in self._variables and name in TYPE_NAMES:
            value = TypeValue(TYPE_NAMES[name][1])
            return lambda frame: value
        place = self.slots.setdefault(name, len(self.slots) + 1)
        return lambda frame: frame[place]

    def _select(self, node: Select) -> Run:
        if "." in node.name and node.operand.type.kind == "error":
            return self._ident(node.name)
        inner, name = self.of(node.operand), node.name
        if node.test:
            return _tested(inner, name)
        static = node.operand.type
        if node.optional or (static.kind == "opaque" and static.name == "optional_type"):
            return lambda frame: _optional_field(inner(frame), name)
        missing = f"no such key: {name}"

        def select(frame: list[Any]) -> Any:
            operand = inner(frame)
            try:
                return operand[name]
            except KeyError:
                raise CelError(missing) from None
            except TypeError:
                if isinstance(operand, Optional):
                    return _optional_field(operand, name)
                raise _unselectable(operand) from None

        return select

    def _call(self, node: Call) -> Run:
        args = [self.of(arg) for arg in node.arguments]
        return call_of(node, args)

    def _list(self, node: ListOf) -> Run:
        if all(isinstance(item, Const) for item in node.items) and not node.optional:
            values = [item.value for item in node.items if isinstance(item, Const)]
            return lambda frame: values
        runs, optional = [self.of(item) for item in node.items], node.optional
        if not optional:
            return lambda frame: [run(frame) for run in runs]

        def make(frame: list[Any]) -> list[Any]:
            made = []
            for position, run in enumerate(runs):
                value = run(frame)
                if position not in optional:
                    made.append(value)
                elif _optional(value).present:
                    made.append(value.value)
            return made

        return make

    def _map(self, node: MapOf) -> Run:
        parts = [(self.of(key), self.of(value), optional) for key, value, optional in node.entries]

        def make(frame: list[Any]) -> dict[Any, Any]:
            made: dict[Any, Any] = {}
            for read_key, read_value, optional in parts:
                key, value = read_key(frame), read_value(frame)
                if key in made:
                    raise CelError(f"Failed with repeated key: {key}")
                if not optional:
                    made[key] = value
                elif _optional(value).present:
                    made[key] = value.value
            return made

        return make

    def _struct(self, node: StructOf) -> Run:
        parts = [(name, self.of(value), optional) for name, value, optional in node.entries]

        def make(frame: list[Any]) -> dict[str, Any]:
            made: dict[str, Any] = {}
            for name, read, optional in parts:
                value = read(frame)
                if not optional:
                    made[name] = value
                elif _optional(value).present:
                    made[name] = value.value
            return made

        return make

    def _fold(self, node: Fold) -> Run:
        over = self.of(node.range)
        scope = {}
        for name in node.names:
            scope[name] = self.offset + self.locals
            self.locals += 1
        self._scopes.append(scope)
        test = self.of(node.filter) if node.filter is not None else None
        body = self.of(node.body)
        self._scopes.pop()
        cost = fixed_cost(node.body) + (fixed_cost(node.filter) if node.filter is not None else 0)
        return fold_of(node, over, test, body, tuple(scope.values()), cost)


def _optional(value: Any) -> Optional:
    if isinstance(value, Optional):
        return value
    raise CelError(f"cannot initialize optional entry from non-optional value {value}")


def _unselectable(operand: Any) -> CelError:
    if isinstance(operand, (list, tuple)):
        return CelError("unsupported index type 'string' in list")
    return CelError("no such overload")


def _tested(inner: Run, name: str) -> Run:
    def test(frame: list[Any]) -> bool:
        operand = inner(frame)
        if isinstance(operand, dict):
            return name in operand
        if isinstance(operand, Optional):
            return operand.present and isinstance(operand.value, dict) and name in operand.value
        raise CelError("no such overload")

    return test


def _optional_field(operand: Any, name: str) -> Optional:
    if isinstance(operand, Optional):
        return _optional_field(operand.value, name) if operand.present else NONE
    if isinstance(operand, dict):
        return Optional(operand[name]) if name in operand else NONE
    raise CelError("no such overload")


def _both(runs: list[Run]) -> Run:
    def check(frame: list[Any]) -> bool:
        failed: Exception | None = None
        for run in runs:
            try:
                value = run(frame)
            except CostExceededError:
                raise
            except _FAILURES as error:
                failed = failed or error
                continue
            if value is False:
                return False
            if value is not True:
                failed = failed or CelError("no such overload")
        if failed is not None:
            raise failed
        return True

    return check


def _either(runs: list[Run]) -> Run:
    def check(frame: list[Any]) -> bool:
        failed: Exception | None = None
        for run in runs:
            try:
                value = run(frame)
            except CostExceededError:
                raise
            except _FAILURES as error:
                failed = failed or error
                continue
            if value is True:
                return True
            if value is not False:
                failed = failed or CelError("no such overload")
        if failed is not None:
            raise failed
        return False

    return check
