"""How a default is filled in: the two meanings Kubernetes gives to "not set"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Object", "Table", "child", "empties", "fill_empty", "fill_missing", "items", "labels_from_template"]

Object = dict[str, Any]
"""An object or a part of one, as JSON decodes it."""

Table = tuple[tuple[str, Any], ...]
"""Field names with the immutable values they get."""


def fill_empty(part: Object, table: Table) -> None:
    """Set each field that is missing or empty: for fields that cannot tell their zero value from no value."""
    for name, value in table:
        if not part.get(name):
            part[name] = value


def fill_missing(part: Object, table: Table) -> None:
    """Set each field that is missing or null: for fields whose zero value is a choice of the user."""
    for name, value in table:
        if part.get(name) is None:
            part[name] = value


def child(part: Object, name: str) -> Object:
    """Return the object in a field, made empty where it is missing: what an answer always carries."""
    found: Object | None = part.get(name)
    if found is None:
        found = part[name] = {}
    return found


def empties(part: Object, names: Iterable[str]) -> None:
    """Give each named field an empty object where it is missing."""
    for name in names:
        if part.get(name) is None:
            part[name] = {}


def items(part: Object, name: str) -> Sequence[Object]:
    """Return the list in a field, empty where it is missing."""
    return part.get(name) or ()


def labels_from_template(obj: Object, template: Object) -> Object | None:
    """Give an object without labels those of its pod template; return the template's labels, if any."""
    labels: Object | None = (template.get("metadata") or {}).get("labels")
    if labels is not None and not child(obj, "metadata").get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    return labels
