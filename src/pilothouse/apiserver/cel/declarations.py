"""Functions: what they take and return, what runs them, what a call costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilothouse.apiserver.cel.types import Type, parse_type
from pilothouse.apiserver.cel.values import Duration, Timestamp, TypeValue, Uint

__all__ = ["Functions", "Overload", "accepts"]

Impl = Callable[..., Any]
Cost = Callable[..., int]


@dataclass(frozen=True, slots=True, eq=False)
class Overload:
    """One way to call a function. `params` has the target of a member function first.

    cost: of one call, given its arguments; None for 1. name: of the function.
    """

    name: str
    member: bool
    params: tuple[Type, ...]
    result: Type
    impl: Impl
    cost: Cost | None = None


class Functions(dict[tuple[str, bool], list[Overload]]):
    """Overloads by function name and whether it is a member. What was added is read when it is included elsewhere."""

    __slots__ = ("_added",)

    def __init__(self) -> None:
        super().__init__()
        self._added: list[tuple[str, Impl, str, Cost | None]] = []

    def add(self, name: str, impl: Impl, *signatures: str, cost: Cost | None = None) -> None:
        """Add overloads of one implementation, written `string, int -> bool`; `string @ int -> bool` for members."""
        self._added += [(name, impl, signature, cost) for signature in signatures]

    def include(self, other: Functions) -> None:
        """Add all that was added to another library."""
        for name, impl, signature, cost in other._added:
            member, params, result = _signature(signature)
            self.setdefault((name, member), []).append(Overload(name, member, params, result, impl, cost))


def _signature(text: str) -> tuple[bool, tuple[Type, ...], Type]:
    left, _, result = text.partition("->")
    target, at, args = left.partition("@")
    member = bool(at)
    listed = args if member else target
    params = parse_type(f"type({listed})").params if listed.strip() else ()
    if member:
        params = (parse_type(target), *params)
    return member, params, parse_type(result)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "uint": lambda value: type(value) is Uint,
    "double": lambda value: type(value) is float,
    "string": lambda value: type(value) is str,
    "bytes": lambda value: type(value) is bytes,
    "bool": lambda value: type(value) is bool,
    "null": lambda value: value is None,
    "list": lambda value: isinstance(value, (list, tuple)),
    "map": lambda value: isinstance(value, dict),
    "object": lambda value: isinstance(value, dict),
    "timestamp": lambda value: isinstance(value, Timestamp),
    "duration": lambda value: isinstance(value, Duration),
    "type": lambda value: isinstance(value, TypeValue),
}


def accepts(param: Type, value: Any) -> bool:
    """Whether a value fits a parameter, as far as the outermost type tells."""
    if param.kind == "opaque":
        return getattr(value, "type_name", "") == param.name
    check = _CHECKS.get(param.kind)
    if check is None:
        return True
    if not check(value):
        return False
    # Of `list(int)` and `list(string)` the first element decides.
    if param.kind == "list" and value and param.params[0].kind not in {"var", "dyn", "list"}:
        return accepts(param.params[0], value[0])
    return True
