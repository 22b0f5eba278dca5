"""Sets of fields, as managed fields keep them: tries whose shape is FieldsV1 itself.

A set is a nested dictionary with one key for each path element, so that reading and writing FieldsV1 converts nothing
but order and spelling. Path elements are `f:<name>`, `k:<JSON object of key fields>`, `v:<JSON value>` and
`i:<index>`. A node that holds nothing is a member without children; a member with children holds `.` too; a node
without `.` but with children is only on the way to them. At the root an empty dictionary is the empty set.

Sets share nodes and are never changed once made. Specification: FieldsV1 of Kubernetes' structured merge and diff.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pilothouse.kinds._goformats import quote
from pilothouse.kinds._gotext import value_text

__all__ = [
    "LEAF",
    "FieldSet",
    "FieldSetError",
    "Path",
    "decode_fields",
    "difference",
    "element_order",
    "encode_fields",
    "field_element",
    "has_path",
    "in_order",
    "index_element",
    "insert",
    "intersection",
    "is_member",
    "key_element",
    "leaves",
    "of_paths",
    "path_text",
    "paths",
    "recursive_difference",
    "size",
    "union",
    "value_element",
]

FieldSet = dict[str, "FieldSet"]
Path = tuple[str, ...]

LEAF: FieldSet = {}
"""The node of a member without children. Shared; never changed."""

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class FieldSetError(ValueError):
    """FieldsV1 that cannot be read: the message names the path element."""


def field_element(name: str) -> str:
    """Return the path element of a named field or map key."""
    return "f:" + name


def index_element(index: int) -> str:
    """Return the path element of a position in a list."""
    return f"i:{index}"


@functools.lru_cache(maxsize=16384, typed=True)
def _text(value: object) -> str:
    return msgspec.json.encode(value).decode().translate(_ESCAPES)


@functools.lru_cache(maxsize=16384, typed=True)
def value_element(value: str | float | bool) -> str:
    """Return the path element of an item of a set."""
    return "v:" + _text(value)


@functools.lru_cache(maxsize=16384, typed=True)
def _key_part(name: str, value: object) -> str:
    return f"{_text(name)}:{_text(value)}"


def key_element(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return the path element of an item of a list-map, from its key fields sorted by name."""
    return "k:{" + ",".join([_key_part(name, value) for name, value in pairs]) + "}"


def is_member(node: FieldSet) -> bool:
    """Say whether the path that leads to this node is in the set."""
    return not node or "." in node


def _norm(node: FieldSet) -> FieldSet:
    return LEAF if len(node) == 1 and "." in node else node


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return the paths that are in either set."""
    if not a or a is b:
        return b
    if not b:
        return a
    out = dict(a)
    for element, node in b.items():
        own = out.get(element)
        out[element] = node if own is None else _union_nodes(own, node)
    return out


def _union_nodes(a: FieldSet, b: FieldSet) -> FieldSet:
    if a and b:
        return union(a, b)
    other = a or b
    return other if not other or "." in other else {".": LEAF, **other}


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return the paths that are in both sets."""
    if a is b:
        return a
    if len(b) < len(a):
        a, b = b, a
    out: FieldSet = {}
    for element, node in a.items():
        other = b.get(element)
        if other is None:
            continue
        if not node or not other:
            if is_member(node) and is_member(other):
                out[element] = LEAF
        elif inner := intersection(node, other):
            out[element] = _norm(inner)
    return out


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return the paths of a that are not in b. A child is not removed with its parent."""
    out: FieldSet | None = None
    for element, other in b.items() if len(b) < len(a) else [(e, b[e]) for e in a if e in b]:
        node = a.get(element)
        if node is None:
            continue
        left = _difference_nodes(node, other)
        if left is node:
            continue
        if out is None:
            out = dict(a)
        if left is None:
            del out[element]
        else:
            out[element] = left
    return a if out is None else out


def _difference_nodes(node: FieldSet, other: FieldSet) -> FieldSet | None:
    if not node:
        return None if is_member(other) else node
    if not other:
        return {e: n for e, n in node.items() if e != "."} if "." in node else node
    left = difference(node, other)
    return (_norm(left) if left else None) if left is not node else node


def recursive_difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return the paths of a that are neither in b nor below a path in b."""
    out: FieldSet = {}
    for element, node in a.items():
        other = b.get(element)
        if other is None:
            out[element] = node
        elif not is_member(other):
            left = recursive_difference(node, other) if node else node
            if left or not node:
                out[element] = _norm(left)
    return out


def leaves(fields: FieldSet) -> FieldSet:
    """Return the members that have no members below them."""
    return {element: leaves(node) for element, node in fields.items() if element != "."}


def has_path(fields: FieldSet, path: Path) -> bool:
    """Say whether the set has the path. The empty path, the whole object, is in no set."""
    node = fields
    for element in path:
        found = node.get(element)
        if found is None:
            return False
        node = found
    return bool(path) and is_member(node)


def paths(fields: FieldSet, prefix: Path = ()) -> Iterator[Path]:
    """Yield every path: those of one level in order, then those below them."""
    inner = []
    for element in sorted(fields, key=element_order):
        if element == ".":
            continue
        node = fields[element]
        if is_member(node):
            yield (*prefix, element)
        if node:
            inner.append(element)
    for element in inner:
        yield from paths(fields[element], (*prefix, element))


def size(fields: FieldSet) -> int:
    """Count the paths in the set."""
    return sum(is_member(n) + (size(n) if n else 0) for e, n in fields.items() if e != ".")


def insert(fields: FieldSet, path: Path, node: FieldSet = LEAF) -> None:
    """Put a node into a set under construction, none of whose inner nodes is shared with another set."""
    for element in path[:-1]:
        inner = fields.get(element)
        if inner is None:
            inner = fields[element] = {}
        elif not inner:
            inner = fields[element] = {".": LEAF}
        fields = inner
    own = fields.get(path[-1])
    fields[path[-1]] = node if own is None else _union_nodes(own, node)


def of_paths(members: Iterable[Path]) -> FieldSet:
    """Return the set of the given paths; the empty path is passed over."""
    fields: FieldSet = {}
    for path in members:
        if path:
            insert(fields, path)
    return fields


def _value_order(value: Any) -> tuple[Any, ...]:
    # Kubernetes' total order over values: numbers, strings, booleans, then the rest.
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, int | float):
        return (0, value)
    return (1, value) if isinstance(value, str) else (3, _text_of(value))


def _text_of(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode().translate(_ESCAPES)


@functools.lru_cache(maxsize=16384)
def element_order(element: str) -> tuple[Any, ...]:
    """Return what path elements are sorted by: `.`, fields, keys, values, indexes."""
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return (1, text)
    if kind == "k:":
        return (2, tuple((name, _value_order(value)) for name, value in msgspec.json.decode(text).items()))
    if kind == "v:":
        return (3, _value_order(msgspec.json.decode(text)))
    return (4, int(text)) if kind == "i:" else (0,)


def in_order(fields: FieldSet) -> FieldSet:
    """Return the same set with its elements in the order Kubernetes writes them."""
    elements = list(fields)
    if len(elements) > 1:
        # Plain text order is the order of names, and of `.` before them.
        plain = all(element[0] in "f." for element in elements)
        elements = sorted(elements) if plain else sorted(elements, key=element_order)
    return {element: in_order(node) if (node := fields[element]) else LEAF for element in elements}


def encode_fields(fields: FieldSet) -> bytes:
    """Encode a set as compact FieldsV1, byte for byte as Kubernetes does."""
    return msgspec.json.encode(in_order(fields))


@functools.lru_cache(maxsize=16384)
def _canonical(element: str) -> str | None:
    if len(element) < 2:
        raise FieldSetError(f"path element {element!r}: key must be 2 characters long")
    if element[1] != ":":
        raise FieldSetError(f"path element {element!r}: missing colon")
    kind, text = element[0], element[2:]
    try:
        if kind == "k":
            pairs = msgspec.json.decode(text, type=dict[str, Any])
            return "k:" + _text_of(pairs)
        if kind == "v":
            return "v:" + _text_of(msgspec.json.decode(text))
        if kind == "i":
            return index_element(int(text))
    except ValueError as error:
        raise FieldSetError(f"path element {element!r}: {error}") from error
    # A later version may know further kinds of elements; like Kubernetes, drop what we do not understand.
    return element if kind == "f" else None


def decode_fields(data: object) -> FieldSet:
    """Read FieldsV1 as decoded from JSON.

    Elements of an unknown kind are dropped with what is below them. Raises FieldSetError for anything else that is
    not FieldsV1.
    """
    if not isinstance(data, Mapping):
        raise FieldSetError(f"FieldsV1 must be an object of path elements, not {type(data).__name__}")
    out: FieldSet = {}
    for key, below in data.items():
        if key == ".":
            continue
        element = key if key[:2] == "f:" else _canonical(key)
        if element is None:
            continue
        if not below and (below is None or below == {}):
            out[element] = LEAF
            continue
        inner = decode_fields(below)
        if "." in below and inner:
            inner = {".": LEAF, **inner}
        out[element] = inner
    return out


def _element_text(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return "." + text
    if kind == "k:":
        pairs = msgspec.json.decode(text)
        return "[" + ",".join(f"{name}={_shown(value)}" for name, value in pairs.items()) + "]"
    return f"[={_shown(msgspec.json.decode(text))}]" if kind == "v:" else f"[{text}]"


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case str():
            return quote(value)
        case dict():
            return "".join(f"{name}={_shown(item)}" for name, item in value.items())
        case list():
            return "[" + ",".join(map(_shown, value)) + "]"
    return value_text(value)


def path_text(path: Path) -> str:
    """Return a path as messages show it, such as `.spec.ports[port=80,protocol="TCP"].name`."""
    return "".join([_element_text(element) for element in path])
