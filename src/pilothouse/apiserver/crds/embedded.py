"""Resources inside resources: what they are called and what their metadata says must be right."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.crds.pruning import object_meta
from pilothouse.apiserver.crds.structural import Node
from pilothouse.kinds import names
from pilothouse.kinds import prune as decoding
from pilothouse.kinds.fielderrors import ErrorList, FieldError, Path
from pilothouse.kinds.validation.metadata import metadata_create

__all__ = ["check_embedded", "has_embedded"]


def has_embedded(node: Node | None) -> bool:
    """Whether there are resources anywhere below the root of a schema."""
    if node is None:
        return False
    additional = node.additional if isinstance(node.additional, Node) else None
    if node.embedded or has_embedded(node.items) or has_embedded(additional):
        return True
    return any(map(has_embedded, node.properties.values()))


def check_embedded(node: Node, value: Any, at: Path, errors: ErrorList) -> None:
    """Say what is wrong with resources inside a value."""
    if type(value) is dict:
        if node.embedded:
            _check_resource(value, at, errors)
        additional = node.additional if isinstance(node.additional, Node) else None
        for name, item in value.items():
            if name in node.properties:
                check_embedded(node.properties[name], item, at.child(name), errors)
            elif additional is not None:
                check_embedded(additional, item, at.key(name), errors)
    elif type(value) is list and node.items is not None:
        for position, item in enumerate(value):
            check_embedded(node.items, item, at.index(position), errors)


def _check_resource(value: dict[str, Any], at: Path, errors: ErrorList) -> None:
    for name in ("apiVersion", "kind"):
        if name not in value:
            errors.required(at.child(name))
    for name in ("apiVersion", "kind"):
        found = value.get(name, "?")
        if not isinstance(found, str):
            errors.invalid(at.child(name), found, "must be a string")
        elif not found:
            errors.invalid(at.child(name), found, "must not be empty")
        elif name == "apiVersion" and found.count("/") > 1:
            errors.invalid(at.child(name), found, f"unexpected GroupVersion string: {found}")
        elif name == "kind" and name in value and (messages := names.dns1035_label(found.lower())):
            text = f"may have mixed case, but should otherwise match: {','.join(messages)}"
            errors.invalid(at.child(name), found, text)
    if "metadata" in value:
        _check_metadata(value["metadata"], at.child("metadata"), errors)


def _check_metadata(metadata: Any, at: Path, errors: ErrorList) -> None:
    try:
        decoded, _ = decoding.decode(object_meta(), metadata)
    except decoding.DecodeError as error:
        errors.invalid(at, metadata, str(error))
        return
    found = ErrorList()
    named = {**(decoded or {}), "name": (decoded or {}).get("name") or "fakename"}
    metadata_create(found, {"metadata": named}, names.path_segment)
    for each in found:
        field = f"{at}{each.field.removeprefix('metadata')}"
        errors.append(FieldError(each.reason, field, each.value, each.detail))
