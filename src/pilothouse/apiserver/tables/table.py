"""Objects as a Table: what `kubectl get` shows, computed by the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

from pilothouse.apiserver.tables import access, core, networking, other, storage, workloads
from pilothouse.apiserver.tables.cells import Object, Printer
from pilothouse.apiserver.tables.custom import custom_columns, custom_printer
from pilothouse.apiserver.tables.partial import to_partial
from pilothouse.apiserver.tables.pods import pod_conditions
from pilothouse.kinds.ages import Ages
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.registry import Column, Resource
from pilothouse.kinds.status import BadRequest

__all__ = ["IncludeObject", "columns", "include_object", "printer", "to_table"]

IncludeObject: TypeAlias = Literal["None", "Metadata", "Object"]

_INCLUDES: Final = ("None", "Metadata", "Object")
_PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    **access.PRINTERS,
    **core.PRINTERS,
    **networking.PRINTERS,
    **other.PRINTERS,
    **storage.PRINTERS,
    **workloads.PRINTERS,
}
_NAME: Final = Column("Name", "string", "name", 0, "Name of the object, unique within its namespace")
_CREATED: Final = Column("Created At", "date", "", 0, "When the object was created")
_DEFAULT: Final = (_NAME, _CREATED)
_SCALE: Final = (
    Column("Name", "string"),
    Column("Desired", "integer"),
    Column("Available", "integer"),
    Column("Age", "string"),
)
_STATUS: Final = (Column("Status", "string"), Column("Reason", "string"), Column("Message", "string"))
_DESCRIPTIONS: Final = {
    "Name": _NAME.description,
    "Age": _CREATED.description,
    "Created At": _CREATED.description,
    "Containers": "Names of the containers in the template",
    "Images": "Images of the containers in the template",
    "Selector": "Which pods belong to it",
    "Ready": "How much of it is ready",
    "Status": "What state it is in",
    "Restarts": "How often its containers were restarted, and when last",
}
_POD: Final = ("", "v1", "Pod")
_ZERO: Final = "0001-01-01T00:00:00Z"
_MEMO: Final = 512


def include_object(text: str) -> IncludeObject:
    """Read the parameter `includeObject` of a request; empty means the metadata. Raises BadRequest."""
    if not text:
        return "Metadata"
    if text not in _INCLUDES:
        raise BadRequest(
            f"Unable to convert to Table as requested: includeObject: Invalid value: {quote(text)}: "
            "must be 'Metadata', 'Object', 'None', or empty"
        )
    return cast("IncludeObject", text)


@lru_cache(maxsize=_MEMO)
def columns(resource: Resource, kind: str = "") -> tuple[Column, ...]:
    """Return the columns of a resource, those of custom resources with the name before them.

    kind: of the objects where they are not of the resource's own (`Scale`, `Status`, `TokenRequest`, ...).
    """
    if kind and kind != resource.kind:
        return _FOREIGN[kind][0] if kind in _FOREIGN else _DEFAULT
    if resource.custom:
        return (_NAME, *custom_columns(resource.columns))
    return resource.columns or _DEFAULT


def printer(resource: Resource, kind: str = "") -> Printer:
    """Return what gives the cells of a resource's objects, as many as `columns` has."""
    if kind and kind != resource.kind:
        return _FOREIGN[kind][1] if kind in _FOREIGN else _created_at
    if resource.custom:
        return custom_printer(custom_columns(resource.columns))
    return _PRINTERS.get((resource.group, resource.kind), _created_at)


def _created_at(obj: Object, ages: Ages) -> list[Any]:
    metadata = obj.get("metadata") or {}
    return [metadata.get("name", ""), metadata.get("creationTimestamp") or _ZERO]


def _status(obj: Object, ages: Ages) -> list[Any]:
    return [obj.get("status", ""), obj.get("reason", ""), obj.get("message", "")]


_FOREIGN: Final[Mapping[str, tuple[tuple[Column, ...], Printer]]] = {
    "Scale": (_SCALE, _PRINTERS["autoscaling", "Scale"]),
    "Status": (_STATUS, _status),
}
"""Kinds that requests about other resources are answered with."""


def _definitions(resource: Resource, kind: str) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or _described(column),
            "priority": column.priority,
        }
        for column in columns(resource, kind)
    ]


def _described(column: Column) -> str:
    if column.json_path:
        return f"Custom resource definition column (in JSONPath format): {column.json_path}"
    return _DESCRIPTIONS.get(column.name, "")


def _precedence(obj: Object) -> tuple[int, str]:
    return (obj.get("spec") or {}).get("matchingPrecedence", 0), obj["metadata"].get("name", "")


def to_table(  # noqa: PLR0913 - each one is an option of a request
    objects: Iterable[Object],
    resource: Resource,
    *,
    now: datetime,
    include_object: IncludeObject = "Metadata",
    list_metadata: Mapping[str, Any] | None = None,
    version: Literal["v1", "v1beta1"] = "v1",
    headers: bool = True,
    kind: str = "",
) -> dict[str, Any]:
    """Return objects as a Table; it shares what it takes from them.

    list_metadata: of the list; for one object its `resourceVersion`. now: aware; ages are as of it.
    headers: whether columns are described; in a watch only the first event does. kind: see `columns`.
    """
    if resource.kind == "FlowSchema":
        objects = sorted(objects, key=_precedence)
    cells, ages = printer(resource, kind), Ages(now)
    rows: list[dict[str, Any]] = []
    with_conditions = resource.gvk == _POD and kind in ("", "Pod")
    own = {"kind": kind or resource.kind, "apiVersion": resource.api_version}
    for obj in objects:
        row: dict[str, Any] = {"cells": cells(obj, ages)}
        if with_conditions and (conditions := pod_conditions(obj)):
            row["conditions"] = conditions
        if include_object == "Metadata":
            row["object"] = to_partial(obj, version)
        elif include_object == "Object":
            row["object"] = {**own, **obj}
        else:
            row["object"] = None
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": dict(list_metadata or {}),
        "columnDefinitions": _definitions(resource, kind) if headers else None,
        "rows": rows,
    }
