"""Fills in the defaults of a schema, and drops nulls that it does not allow."""

from __future__ import annotations

import copy
from typing import Any

from pilothouse.apiserver.crds.structural import Node

__all__ = ["default", "drop_nulls", "has_defaults"]


def has_defaults(node: Node | None) -> bool:
    """Whether there is a default anywhere in a schema."""
    if node is None:
        return False
    if node.default is not None or any(map(has_defaults, node.properties.values())):
        return True
    additional = node.additional if isinstance(node.additional, Node) else None
    return has_defaults(node.items) or has_defaults(additional)


def default(node: Node | None, value: Any) -> None:
    """Fill in defaults, in place; a null that is not allowed gives way to the default."""
    if node is None:
        return
    if type(value) is dict:
        _default_map(node, value)
    elif type(value) is list and node.items is not None:
        items = node.items
        for at, item in enumerate(value):
            if item is None and not items.nullable:
                value[at] = copy.deepcopy(items.default)
            default(items, value[at])


def _default_map(node: Node, value: dict[str, Any]) -> None:
    for name, inner in node.properties.items():
        if inner.default is not None and value.get(name) is None and not (name in value and inner.nullable):
            value[name] = copy.deepcopy(inner.default)
    additional = node.additional if isinstance(node.additional, Node) else None
    for name, item in value.items():
        found = node.properties.get(name)
        if found is not None:
            if type(item) is dict or type(item) is list:
                default(found, item)
        elif additional is not None:
            if item is None and not additional.nullable:
                value[name] = copy.deepcopy(additional.default)
            default(additional, value[name])


def drop_nulls(node: Node | None, value: Any) -> None:
    """Drop nulls of fields that allow none and have no default, in place; `default` replaces those with one."""
    if type(value) is dict:
        dropped: list[str] = []
        for name, item in value.items():
            found = node.child(name) if node is not None else None
            if item is None:
                if found is not None and not found.nullable and found.default is None:
                    dropped.append(name)
            elif type(item) is dict or type(item) is list:
                drop_nulls(found, item)
        for name in dropped:
            del value[name]
    elif type(value) is list:
        items = node.items if node is not None else None
        for item in value:
            if type(item) is dict or type(item) is list:
                drop_nulls(items, item)
