"""The types of expressions, how they are written, and which value fits where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

__all__ = [
    "BOOL",
    "BYTES",
    "DOUBLE",
    "DURATION",
    "DYN",
    "ERROR",
    "INT",
    "NULL",
    "STRING",
    "TIMESTAMP",
    "UINT",
    "Bindings",
    "Type",
    "list_of",
    "map_of",
    "object_type",
    "opaque",
    "optional_of",
    "parse_type",
    "type_of",
    "variable",
]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object: its type and the name it has in the data, which may not be an identifier."""

    type: Type
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """One type. kind: `int`, `list`, `opaque`, `object`, ...; name: of opaque types, objects and type variables."""

    kind: str
    name: str = ""
    params: tuple[Type, ...] = ()
    fields_or_thunk: Mapping[str, Field] | Callable[[], Mapping[str, Field]] = field(default_factory=dict)
    max_size: int | None = None
    """Of a list, map or string: the most elements or characters that the schema allows; None where unknown."""
    min_bytes: int = 0
    """The shortest encoding, in bytes; sizes are derived from it where the schema gives no maximum."""
    open: bool = False
    """Of an object: whether fields that are not declared may be selected."""

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields of an object by the name that expressions use."""
        found = self.fields_or_thunk
        if callable(found):
            found = found()
            object.__setattr__(self, "fields_or_thunk", found)
        return found

    def __str__(self) -> str:
        match self.kind:
            case "list" | "map" | "type" | "opaque" if self.params:
                name = self.name or self.kind
                return f"{name}({', '.join(map(str, self.params))})"
            case "opaque" | "object" | "var":
                return self.name
            case "error":
                return "!error!"
        return self.kind

    def same(self, other: Type) -> bool:
        """Whether both are the same type."""
        if self is other:
            return True
        return (
            self.kind == other.kind
            and self.name == other.name
            and len(self.params) == len(other.params)
            and all(a.same(b) for a, b in zip(self.params, other.params, strict=True))
        )


DYN = Type("dyn")
ERROR = Type("error")
BOOL = Type("bool")
INT = Type("int")
UINT = Type("uint")
DOUBLE = Type("double")
STRING = Type("string")
BYTES = Type("bytes")
NULL = Type("null")
TIMESTAMP = Type("timestamp")
DURATION = Type("duration")

_PLAIN = {
    "dyn": DYN,
    "bool": BOOL,
    "int": INT,
    "uint": UINT,
    "double": DOUBLE,
    "string": STRING,
    "bytes": BYTES,
    "null": NULL,
    "timestamp": TIMESTAMP,
    "duration": DURATION,
}
_NULLABLE = frozenset({"opaque", "object", "timestamp", "duration", "null"})


def list_of(element: Type, *, max_size: int | None = None, min_bytes: int = 2) -> Type:
    """Return the type of lists."""
    return Type("list", params=(element,), max_size=max_size, min_bytes=min_bytes)


def map_of(key: Type, value: Type, *, max_size: int | None = None, min_bytes: int = 2) -> Type:
    """Return the type of maps."""
    return Type("map", params=(key, value), max_size=max_size, min_bytes=min_bytes)


def optional_of(value: Type) -> Type:
    """Return the type of values that may be absent."""
    return Type("opaque", "optional_type", (value,))


def type_of(value: Type) -> Type:
    """Return the type of a type."""
    return Type("type", params=(value,))


@cache
def opaque(name: str) -> Type:
    """Return a type that only functions know about."""
    return Type("opaque", name)


def object_type(
    name: str,
    fields: Mapping[str, Field] | Callable[[], Mapping[str, Field]],
    *,
    min_bytes: int = 2,
    unknown: bool = False,
) -> Type:
    """Return the type of objects with declared fields; `unknown` ones may be selected as well where it says so."""
    # Kubernetes counts an object as nothing when it estimates what comparing costs.
    return Type("object", name, fields_or_thunk=fields, max_size=0, min_bytes=min_bytes, open=unknown)


def variable(name: str) -> Type:
    """Return a type variable."""
    return Type("var", name)


def parse_type(text: str) -> Type:
    """Read a type as declarations write it: `list(T)`, `map(string, dyn)`, `optional(T)`, `net.IP`."""
    made, rest = _read(text.strip())
    if rest:
        raise ValueError(f"type {text!r}: {rest!r} is left over")
    return made


def _read(text: str) -> tuple[Type, str]:
    size = 0
    while size < len(text) and (text[size].isalnum() or text[size] in "._"):
        size += 1
    name, rest = text[:size], text[size:].lstrip()
    params: list[Type] = []
    if rest.startswith("("):
        rest = rest[1:]
        while True:
            param, rest = _read(rest.strip())
            params.append(param)
            rest = rest.lstrip()
            ended, rest = rest[0] == ")", rest[1:]
            if ended:
                break
    return _named(name, params), rest.lstrip()


def _named(name: str, params: list[Type]) -> Type:
    if name == "optional":
        return optional_of(params[0])
    if name in {"list", "map", "type"}:
        return Type(name, params=tuple(params))
    if name in _PLAIN:
        return _PLAIN[name]
    return variable(name) if len(name) == 1 and name.isupper() else opaque(name)


class Bindings:
    """What type variables stand for, found while arguments are matched with parameters."""

    __slots__ = ("_count", "_found")

    def __init__(self) -> None:
        self._found: dict[str, Type] = {}
        self._count = 0

    def fresh(self) -> Type:
        """Return a type variable that nothing else uses."""
        self._count += 1
        return variable(f"_var{self._count}")

    def renamed(self, types: Sequence[Type]) -> list[Type]:
        """Return types with their variables replaced by fresh ones, the same for the same."""
        names: dict[str, Type] = {}
        return [self._rename(each, names) for each in types]

    def _rename(self, given: Type, names: dict[str, Type]) -> Type:
        if given.kind == "var":
            if given.name not in names:
                names[given.name] = self.fresh()
            return names[given.name]
        if not given.params:
            return given
        params = tuple(self._rename(each, names) for each in given.params)
        return given if params == given.params else _with(given, params)

    def resolve(self, given: Type) -> Type:
        """Return a type with known variables replaced."""
        while given.kind == "var" and given.name in self._found:
            given = self._found[given.name]
        if not given.params:
            return given
        params = tuple(self.resolve(each) for each in given.params)
        return given if all(a is b for a, b in zip(params, given.params, strict=True)) else _with(given, params)

    def final(self, given: Type) -> Type:
        """Return a type without variables: `dyn` for what was never bound."""
        given = self.resolve(given)
        if given.kind == "var":
            return DYN
        return _with(given, tuple(self.final(each) for each in given.params)) if given.params else given

    def snapshot(self) -> dict[str, Type]:
        """Return what is known, to go back to."""
        return dict(self._found)

    def restore(self, found: dict[str, Type]) -> None:
        """Go back to what was known."""
        self._found = found

    def assignable(self, wanted: Type, given: Type) -> bool:
        """Whether a value of one type fits where another is wanted; binds variables."""
        wanted, given = self.resolve(wanted), self.resolve(given)
        if wanted is given or "dyn" in (wanted.kind, given.kind) or "error" in (wanted.kind, given.kind):
            return True
        if wanted.kind == "var":
            return self._bind(wanted.name, given)
        if given.kind == "var":
            return self._bind(given.name, wanted)
        if given.kind == "null" or wanted.kind == "null":
            return (wanted if given.kind == "null" else given).kind in _NULLABLE
        if wanted.kind != given.kind or wanted.name != given.name or len(wanted.params) != len(given.params):
            return False
        # Types as values may be compared, whatever they are of.
        return wanted.kind == "type" or all(map(self.assignable, wanted.params, given.params))

    def _bind(self, name: str, given: Type) -> bool:
        if self._occurs(name, given):
            return given.kind == "var"
        self._found[name] = given
        return True

    def _occurs(self, name: str, given: Type) -> bool:
        given = self.resolve(given)
        if given.kind == "var":
            return given.name == name
        return any(self._occurs(name, each) for each in given.params)


def _with(given: Type, params: tuple[Type, ...]) -> Type:
    return Type(given.kind, given.name, params, given.fields_or_thunk, given.max_size, given.min_bytes, given.open)
