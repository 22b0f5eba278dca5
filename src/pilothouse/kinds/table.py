"""The types of Kubernetes 1.36: each one a schema, built on first use.

The facts lie in `data/types.json`, which `scripts/generate-kinds` writes and describes. Loading it only splits it into
one piece of JSON a type; a piece is read when its type is asked for, and a type's fields when they are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from .schema import Schema, Shape

__all__ = ["UnknownType", "full_name", "kinds", "schema_for", "schema_named", "type_names"]

_WORDS: dict[str, tuple[Shape, str]] = {
    "s": ("string", ""),
    "y": ("string", "byte"),
    "t": ("string", "date-time"),
    "x": ("string", "int-or-string"),
    "i32": ("integer", "int32"),
    "i64": ("integer", "int64"),
    "d": ("number", "double"),
    "b": ("boolean", ""),
}

# These have no fields of their own in the facts, since Go decodes them by code.
_OPAQUE: dict[str, tuple[Shape, str]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ("string", "quantity"),
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": ("string", "micro-time"),
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": ("string", "date-time"),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("string", "int-or-string"),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus": ("object", ""),
}


class UnknownType(KeyError):
    """A type that Kubernetes 1.36 does not have."""

    def __str__(self) -> str:
        return f"no type {self.args[0]!r} in the table of Kubernetes types; `type_names()` lists those there are"


class _Table(msgspec.Struct, gc=False):
    """What `types.json` holds, its types still undecoded."""

    prefixes: dict[str, str]
    kinds: dict[str, str]
    types: dict[str, msgspec.Raw]

    def full(self, short: str) -> str:
        """Return the full name that `short` stands for."""
        return self.prefixes[short[:2]] + short[2:]


@cache
def _table() -> _Table:
    place = resources.files(__package__) / "data" / "types.json"
    return msgspec.json.decode(place.read_bytes(), type=_Table)


@cache
def _short_names() -> dict[str, str]:
    table = _table()
    return {table.full(short): short for short in table.types}


def full_name(short: str) -> str:
    """Return the full name that a short one in the data stands for (`a.core.v1.Pod`)."""
    return _table().full(short)


def type_names() -> frozenset[str]:
    """Return the full names of all types, as OpenAPI has them (`io.k8s.api.core.v1.Container`)."""
    return frozenset(_short_names())


@cache
def kinds() -> Mapping[tuple[str, str, str], str]:
    """Return the full name of the type of each kind, by group, version and kind.

    The group and version `*` stand for kinds that every group and version has (`DeleteOptions`, `WatchEvent`).
    """
    table = _table()
    found = {}
    for key, short in table.kinds.items():
        group, version, kind = key.split("/")
        found[group, version, kind] = table.full(short)
    return found


@cache
def schema_for(group: str, version: str, kind: str) -> Schema | None:
    """Return the schema of a built-in kind, or None where there is no such kind. The core group is the empty string."""
    names = kinds()
    name = names.get((group, version, kind)) or names.get(("*", "*", kind))
    return schema_named(name) if name else None


def schema_named(name: str) -> Schema:
    """Return the schema of the type with this full name. Raises UnknownType."""
    short = _short_names().get(name)
    if short is None:
        raise UnknownType(name)
    return _schema_of(short)


@cache
def _schema_of(short: str) -> Schema:
    table = _table()
    name = table.full(short)
    node = msgspec.json.decode(table.types[short])
    if name in _OPAQUE:
        shape, form = _OPAQUE[name]
        return Schema(shape, name=name, format=form)
    if "f" not in node:
        return Schema("any", name=name, preserve_unknown=True)
    return Schema(
        "object",
        name=name,
        fields_or_thunk=lambda: {field: _node(inner) for field, inner in node["f"].items()},
        required=tuple(node.get("q", ())),
        map_type=node.get("mt", "granular"),
    )


def _node(node: str | dict[str, Any]) -> Schema:
    """Build the schema of one field, element or value. Simple ones and whole types are shared."""
    if isinstance(node, str):
        return _simple(node)
    if "l" in node:
        made = Schema("list", element=_node(node["l"]))
    elif "v" in node:
        made = Schema("map", element=_node(node["v"]))
    else:
        made = _simple(node["is"])
    return replace(
        made,
        list_type=node.get("lt", made.list_type),
        list_keys=tuple(node.get("lk", ())),
        map_type=node.get("mt", made.map_type),
        patch_strategy=tuple(node["ps"].split(",")) if "ps" in node else (),
        patch_merge_key=node.get("pk", ""),
        enum=tuple(node.get("e", ())),
        default=node.get("d"),
        has_default="d" in node,
    )


@cache
def _simple(word: str) -> Schema:
    if word.startswith("@"):
        return _schema_of(word[1:])
    shape, form = _WORDS[word]
    return Schema(shape, format=form)
