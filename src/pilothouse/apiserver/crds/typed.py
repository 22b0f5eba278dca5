"""The schema that server-side apply works with, made of a structural one."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pilothouse.apiserver.crds.pruning import object_meta
from pilothouse.apiserver.crds.structural import Node
from pilothouse.kinds.schema import ANY, Schema

__all__ = ["schema_of"]

_STRING = Schema("string")
_INT_OR_STRING = Schema("any", format="int-or-string")


def schema_of(node: Node) -> Schema:
    """Return the schema of a whole resource: as declared, with typed metadata, apiVersion and kind."""
    made = _schema(node)
    fields = dict(made.fields) if made.shape == "object" else {}
    fields |= {"apiVersion": _STRING, "kind": _STRING, "metadata": object_meta()}
    return replace(made, shape="object", fields_or_thunk=fields)


def _schema(node: Node) -> Schema:
    if node.int_or_string:
        return _INT_OR_STRING
    match node.type:
        case "object":
            return _object(node)
        case "array":
            return _list(node)
        case "string":
            return Schema("string", format=node.format, enum=node.enum, nullable=node.nullable)
        case "integer":
            return Schema("integer", format=node.format, nullable=node.nullable)
        case "number":
            return Schema("number", format=node.format, nullable=node.nullable)
        case "boolean":
            return Schema("boolean", nullable=node.nullable)
    return ANY


def _object(node: Node) -> Schema:
    map_type: Literal["granular", "atomic"] = "atomic" if node.map_type == "atomic" else "granular"
    if not node.properties and not node.embedded:
        if isinstance(node.additional, Node):
            return Schema("map", element=_schema(node.additional), map_type=map_type, nullable=node.nullable)
        if node.additional is True:
            return Schema("map", element=ANY, map_type=map_type, nullable=node.nullable)
    fields = {name: _with_default(_schema(part), part) for name, part in node.properties.items()}
    if node.embedded:
        fields |= {"apiVersion": _STRING, "kind": _STRING, "metadata": object_meta()}
    return Schema(
        "object",
        fields_or_thunk=fields,
        required=node.required,
        map_type=map_type,
        nullable=node.nullable,
        preserve_unknown=node.preserve,
    )


def _with_default(schema: Schema, node: Node) -> Schema:
    """Return a schema with its default: a key that an element of a list leaves out is what it is filled with."""
    if not isinstance(node.default, (str, int, float, bool)):
        return schema
    return replace(schema, default=node.default, has_default=True)


def _list(node: Node) -> Schema:
    element = _schema(node.items) if node.items is not None else ANY
    list_type: Literal["atomic", "set", "map"] = "atomic"
    if node.list_type == "set":
        list_type = "set"
    elif node.list_type == "map":
        list_type = "map"
    return Schema("list", element=element, list_type=list_type, list_keys=node.list_keys, nullable=node.nullable)
