"""The closures of calls: operators that types make quick, functions chosen when their arguments are known."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from pilothouse.apiserver.cel.declarations import Overload, accepts
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.optionals import optional_index
from pilothouse.apiserver.cel.regex import PatternError, compile_pattern, found
from pilothouse.apiserver.cel.standard import index
from pilothouse.apiserver.cel.syntax import Call, Const, ListOf, Node
from pilothouse.apiserver.cel.values import Optional

__all__ = ["call_of"]

Run = Callable[[list[Any]], Any]
_COMPARISONS = {"_<_": operator.lt, "_<=_": operator.le, "_>_": operator.gt, "_>=_": operator.ge}
_SCALARS = frozenset({"int", "bool", "uint", "double"})
_NUMBERS = frozenset({"int", "uint", "double"})
_VAGUE = frozenset({"dyn", "error", "var"})


def call_of(node: Call, args: Sequence[Run]) -> Run:
    """Return the closure of a call, given those of its arguments."""
    match node.function:
        case "_?_:_":
            return _conditional(args)
        case "orValue" | "or" if node.target is not None:
            return _alternative(args, whole=node.function == "or")
        case "_[_]":
            return _indexed(args)
    return _quick(node, args) or _general(node, args)


def _conditional(args: Sequence[Run]) -> Run:
    test, yes, no = args

    def choose(frame: list[Any]) -> Any:
        found = test(frame)
        if found is True:
            return yes(frame)
        if found is False:
            return no(frame)
        raise CelError("no such overload")

    return choose


def _alternative(args: Sequence[Run], *, whole: bool) -> Run:
    first, second = args

    def choose(frame: list[Any]) -> Any:
        found = first(frame)
        if not isinstance(found, Optional):
            raise CelError("no such overload")
        if not found.present:
            return second(frame)
        return found if whole else found.value

    return choose


def _indexed(args: Sequence[Run]) -> Run:
    found, key = args

    def read(frame: list[Any]) -> Any:
        holder = found(frame)
        if isinstance(holder, Optional):
            return optional_index(holder, key(frame))
        return index(holder, key(frame))

    return read


def _quick(node: Call, args: Sequence[Run]) -> Run | None:
    """Return a closure for operators on types that Python compares alike, None for others."""
    if len(args) == 1:
        if node.function == "!_" and node.arguments[0].type.kind == "bool":
            only = args[0]
            return lambda frame: not only(frame)
        return None
    if len(args) != 2:
        return None
    (left, right), (a, b) = args, (each.type.kind for each in node.arguments)
    compare = _COMPARISONS.get(node.function)
    if compare is not None and a in _NUMBERS and b in _NUMBERS:
        return lambda frame: compare(left(frame), right(frame))
    if node.function in {"_==_", "_!=_"} and a == b and (a in _SCALARS or (a == "string" and _short(node))):
        if node.function == "_==_":
            return lambda frame: left(frame) == right(frame)
        return lambda frame: left(frame) != right(frame)
    if node.function == "@in":
        return _member_of_constants(node, left)
    if node.function == "matches":
        return _constant_pattern(node, left)
    return None


def _short(node: Call) -> bool:
    return any(isinstance(arg, Const) and len(arg.value) <= 64 for arg in node.arguments)


def _member_of_constants(node: Call, left: Run) -> Run | None:
    listed = node.args[1]
    if node.args[0].type.kind != "string" or not isinstance(listed, ListOf) or listed.optional:
        return None
    if not all(isinstance(item, Const) and type(item.value) is str for item in listed.items):
        return None
    values = frozenset(item.value for item in listed.items if isinstance(item, Const))
    return lambda frame: left(frame) in values


def _constant_pattern(node: Call, left: Run) -> Run | None:
    pattern: Node = node.arguments[1]
    if not isinstance(pattern, Const) or node.arguments[0].type.kind != "string":
        return None
    try:
        compile_pattern(pattern.value)
    except PatternError:
        return None
    wanted = pattern.value
    weight = -(-len(wanted) // 4)

    def match(frame: list[Any]) -> bool:
        text = left(frame)
        frame[0].spend(-(-(1 + len(text)) // 10) * weight)
        return found(wanted, text)

    return match


def _general(node: Call, args: Sequence[Run]) -> Run:
    overloads: Sequence[Overload] = node.overload
    sure = len(overloads) == 1 and not any(each.type.kind in _VAGUE for each in node.arguments)
    if sure or _all_vague(overloads):
        return _direct(overloads[0], args)

    def dispatch(frame: list[Any]) -> Any:
        values = [arg(frame) for arg in args]
        for overload in overloads:
            if all(map(accepts, overload.params, values)):
                if overload.cost is not None:
                    frame[0].spend(overload.cost(*values))
                return overload.impl(*values)
        raise CelError("no such overload")

    return dispatch


def _all_vague(overloads: Sequence[Overload]) -> bool:
    return len(overloads) == 1 and all(param.kind in _VAGUE for param in overloads[0].params)


def _direct(overload: Overload, args: Sequence[Run]) -> Run:
    impl, cost = overload.impl, overload.cost
    if cost is None:
        if len(args) == 1:
            only = args[0]
            return lambda frame: impl(only(frame))
        if len(args) == 2:
            left, right = args
            return lambda frame: impl(left(frame), right(frame))
        return lambda frame: impl(*[arg(frame) for arg in args])

    def run(frame: list[Any]) -> Any:
        values = [arg(frame) for arg in args]
        frame[0].spend(cost(*values))
        return impl(*values)

    return run
