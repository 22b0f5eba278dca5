"""JSON to structs and back, with all that a struct does not model carried along.

An object without unknown fields, which is nearly every one, is decoded by msgspec alone. Only where it refuses one is
the JSON read a second time: unknown fields of every object go to a mapping under a name that no field has, and
msgspec takes that for the struct's field `carried`. Encoding is the same the other way round.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from ._absent import CARRIED_KEY, Carried, plain

__all__ = ["StructError", "decode", "encode", "from_dict", "replace", "to_dict"]

S = TypeVar("S", bound=msgspec.Struct)

_MARK: Final = f'"{CARRIED_KEY}":'.encode()
_encoder: Final = msgspec.json.Encoder(enc_hook=plain)


class StructError(ValueError):
    """Data is no JSON, or not of the type that it is read as; the message says where."""


class _MisfitError(Exception):
    """A text is none of those that its type lists."""


def decode(data: bytes | str, kind: type[S]) -> S:
    """Read JSON as a struct of the type `kind`. Raises StructError.

    Unknown fields, and texts that a `Literal` does not list, are in `carried` of the struct where they were; a null is
    the same as an absent field.
    """
    try:
        try:
            found: S = _decoder(kind).decode(data)
        except msgspec.ValidationError:
            found = _convert(_prepared(_any_decoder.decode(data), kind), kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StructError(f"{_name(kind)}: not JSON: {error}") from error
    except RecursionError as error:
        raise StructError(f"{_name(kind)}: nested too deeply to be read") from error
    return found


def encode(value: msgspec.Struct) -> bytes:
    """Write a struct as JSON: its fields that are not absent, then what it carries along."""
    data = _encoder.encode(value)
    return _encoder.encode(_tree(value)) if _MARK in data else data


def from_dict(tree: Mapping[str, Any], kind: type[S]) -> S:
    """Read a dictionary as JSON decodes it, as `decode` does; it is not changed. Raises StructError."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError:
        return _convert(_prepared(tree, kind), kind)


def to_dict(value: msgspec.Struct) -> dict[str, Any]:
    """Give a dictionary as JSON decodes it, of which nothing is shared with the struct."""
    found: dict[str, Any] = _any_decoder.decode(encode(value))
    return found


def replace(value: S, /, **changes: Any) -> S:
    """Give a copy with some fields changed, also inner ones: `replace(pod, spec__node_name="n1")`.

    What is carried along stays. An inner struct that is not there is made. Raises TypeError for a field that there is
    not.
    """
    inner: dict[str, dict[str, Any]] = {}
    for path in [path for path in changes if "__" in path]:
        first, _, rest = path.partition("__")
        inner.setdefault(first, {})[rest] = changes.pop(path)
    for first, below in inner.items():
        if first in changes or first not in value.__struct_fields__:
            problem = "is there twice" if first in changes else "is none of its fields"
            raise TypeError(f"{type(value).__name__}: {first} {problem}; change {', '.join(value.__struct_fields__)}")
        changes[first] = replace(_struct_at(value, first), **below)
    return msgspec.structs.replace(value, **changes)


def _struct_at(value: msgspec.Struct, attribute: str) -> msgspec.Struct:
    found = getattr(value, attribute)
    if found is None:
        made = next((one.type for one in _fields(type(value)) if one.name == attribute), None)
        kinds = [part.cls for part in _parts(made) if isinstance(part, msgspec.inspect.StructType)]
        found = kinds[0]() if kinds else None
    if not isinstance(found, msgspec.Struct):
        raise TypeError(f"{type(value).__name__}.{attribute} has no fields of its own; replace it as a whole")
    return found


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_any_decoder: Final = msgspec.json.Decoder()


def _name(kind: object) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _convert(tree: Any, kind: type[S]) -> S:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise StructError(f"{_name(kind)}: {error}") from error


def _tree(value: msgspec.Struct) -> dict[str, Any]:
    tree: dict[str, Any] = msgspec.to_builtins(value, enc_hook=plain)
    _lift(value, tree)
    return tree


def _lift(value: Any, tree: Any) -> None:
    """Put what structs carry along beside their other fields, which win."""
    if isinstance(value, msgspec.Struct):
        for attribute, name in _nested(type(value)):
            if name in tree:
                _lift(getattr(value, attribute), tree[name])
        if carried := tree.pop(CARRIED_KEY, None):
            tree.update((name, one) for name, one in carried.items() if name not in tree)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            _lift(one, tree.get(name))
    elif isinstance(value, list | tuple):
        for one, below in zip(value, tree, strict=True):
            _lift(one, below)


@cache
def _nested(kind: Any) -> tuple[tuple[str, str], ...]:
    """Return the fields, by attribute and JSON name, below which there may be structs."""
    return tuple((field.name, field.encode_name) for field in _fields(kind) if _holds_structs(field.type))


def _holds_structs(found: msgspec.inspect.Type) -> bool:
    if isinstance(found, msgspec.inspect.UnionType):
        return any(map(_holds_structs, found.types))
    if isinstance(found, msgspec.inspect.CollectionType):
        return _holds_structs(found.item_type)
    if isinstance(found, msgspec.inspect.DictType):
        return _holds_structs(found.value_type)
    return isinstance(found, msgspec.inspect.StructType)


_Step = Callable[[Any], Any]


class _Steps(NamedTuple):
    """What to do with a value of one type, by what it is; None where there is nothing to do."""

    with_dict: _Step | None = None
    with_list: _Step | None = None
    with_text: _Step | None = None

    def take_dict(self, value: Any) -> Any:
        """Do with an object what it asks for."""
        return self.with_dict(value) if self.with_dict and isinstance(value, dict) else value

    def take(self, value: Any) -> Any:
        """Do with the value what its kind asks for."""
        step = None
        if isinstance(value, dict):
            step = self.with_dict
        elif isinstance(value, list | tuple):
            step = self.with_list
        elif isinstance(value, str):
            step = self.with_text
        return step(value) if step else value


class _Shape:
    """Moves unknown fields of the objects of one struct type out of msgspec's way."""

    __slots__ = ("_kind", "_names", "_steps")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._names: frozenset[str] = frozenset()
        self._steps: dict[str, _Step] = {}

    def __call__(self, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._names:
            self._learn()
        unknown: dict[str, Any] = {}
        changed: dict[str, Any] = {}
        for name, value in tree.items():
            if step := self._steps.get(name):
                try:
                    made = step(value)
                except _MisfitError:
                    unknown[name] = value
                else:
                    if made is not value:
                        changed[name] = made
        return self._rebuilt(tree, unknown, changed)

    def _rebuilt(self, tree: Mapping[str, Any], unknown: dict[str, Any], changed: dict[str, Any]) -> Mapping[str, Any]:
        """Give the same object where nothing has to change, which is the usual case."""
        names = self._names
        if not tree.keys() <= names:
            unknown |= {name: value for name, value in tree.items() if name not in names}
        if not unknown and not changed and None not in tree.values():
            return tree
        known = {name: value for name, value in tree.items() if value is not None and name not in unknown}
        known |= changed
        if unknown:
            known[CARRIED_KEY] = Carried(unknown)
        return known

    def _learn(self) -> None:
        fields = [field for field in _fields(self._kind) if field.encode_name != CARRIED_KEY]
        self._steps = {field.encode_name: step for field in fields if (step := _step(field.type))}
        self._names = frozenset(field.encode_name for field in fields)


_shape = cache(_Shape)


def _fields(kind: Any) -> tuple[msgspec.inspect.Field, ...]:
    found = msgspec.inspect.type_info(kind)
    return found.fields if isinstance(found, msgspec.inspect.StructType) else ()


def _parts(found: msgspec.inspect.Type | None) -> tuple[msgspec.inspect.Type, ...]:
    if isinstance(found, msgspec.inspect.UnionType):
        return found.types
    return (found,) if found else ()


def _step(found: msgspec.inspect.Type) -> _Step | None:
    """Say what to do with a value of this type before msgspec sees it."""
    steps = _Steps()
    for part in _parts(found):
        if isinstance(part, msgspec.inspect.StructType):
            steps = steps._replace(with_dict=_shape(part.cls))
        elif isinstance(part, msgspec.inspect.LiteralType):
            steps = steps._replace(with_text=_listed(frozenset(part.values)))
        elif isinstance(part, msgspec.inspect.DictType) and (inner := _step(part.value_type)):
            steps = steps._replace(with_dict=_in_values(inner))
        elif isinstance(part, msgspec.inspect.CollectionType) and (inner := _step(part.item_type)):
            steps = steps._replace(with_list=_in_elements(inner))
    if steps.with_dict and not steps.with_list and not steps.with_text:
        return steps.take_dict
    return steps.take if any(steps) else None


def _listed(texts: frozenset[Any]) -> _Step:
    def step(value: Any) -> Any:
        if value not in texts:
            raise _MisfitError
        return value

    return step


def _in_elements(inner: _Step) -> _Step:
    def step(values: Any) -> Any:
        made = [inner(value) for value in values]
        return values if all(map(operator.is_, made, values)) else made

    return step


def _in_values(inner: _Step) -> _Step:
    return lambda values: {name: inner(value) for name, value in values.items()}


def _prepared(tree: Any, kind: Any) -> Any:
    step = _step_for(kind)
    return step(tree) if step else tree


@cache
def _step_for(kind: Any) -> _Step | None:
    return _step(msgspec.inspect.type_info(kind))
