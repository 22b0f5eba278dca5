"""Lists that are sets or maps: nothing may stand in them twice."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.crds.structural import Node
from pilothouse.kinds.fielderrors import ErrorList, Path, json_text

__all__ = ["check_list_types", "has_list_types"]


def has_list_types(node: Node | None) -> bool:
    """Whether there are such lists anywhere in a schema."""
    if node is None:
        return False
    additional = node.additional if isinstance(node.additional, Node) else None
    if node.list_type in {"set", "map"} or has_list_types(node.items) or has_list_types(additional):
        return True
    return any(map(has_list_types, node.properties.values()))


def check_list_types(node: Node, value: Any, at: Path, errors: ErrorList) -> None:
    """Say what stands twice in sets and maps of a value and below."""
    if type(value) is dict:
        for name, item in value.items():
            if type(item) is not dict and type(item) is not list:
                continue
            if isinstance(node.additional, Node):
                check_list_types(node.additional, item, at.key(name), errors)
            elif name in node.properties:
                check_list_types(node.properties[name], item, at.child(name), errors)
    elif type(value) is list:
        _check_list(node, value, at, errors)


def _check_list(node: Node, value: list[Any], at: Path, errors: ErrorList) -> None:
    if node.list_type == "set":
        for position in _repeated(value):
            errors.duplicate(at.index(position), value[position])
    elif node.list_type == "map":
        _check_map(node, value, at, errors)
    if node.items is not None:
        for position, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                check_list_types(node.items, item, at.index(position), errors)


def _check_map(node: Node, value: list[Any], at: Path, errors: ErrorList) -> None:
    for position, item in enumerate(value):
        if item is not None and type(item) is not dict:
            errors.invalid(at.index(position), item, "must be an object for an array of list-type map")
            return
    names = node.list_keys
    keys = [{name: item[name] for name in names if name in item} if item else {} for item in value]
    for position in _repeated(keys):
        errors.duplicate(at.index(position), keys[position])


def _repeated(items: list[Any]) -> list[int]:
    """Return where something stands for the second time."""
    if len(items) < 2:
        return []
    seen: dict[Any, int] = {}
    found: list[int] = []
    for position, item in enumerate(items):
        key = (type(item), json_text(item)) if isinstance(item, (dict, list)) else (type(item), item)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 2:
            found.append(position)
    return found
