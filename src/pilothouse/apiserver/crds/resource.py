"""What discovery and tables know of a custom resource."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.registry import Column, Resource, Subresource

__all__ = ["DEFAULT_COLUMNS", "columns_of", "resource_of"]

DEFAULT_COLUMNS = (Column("Age", "date", json_path=".metadata.creationTimestamp"),)
"""Shown where a definition names no columns."""
# The order in which kube-apiserver lists them.
_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_SUBRESOURCE_VERBS = ("get", "patch", "update")


def columns_of(version: dict[str, Any]) -> tuple[Column, ...]:
    """Return the printer columns of a version, without the name."""
    found = version.get("additionalPrinterColumns")
    if not found:
        return DEFAULT_COLUMNS
    return tuple(
        Column(
            each["name"],
            each["type"],
            each.get("format") or "",
            each.get("priority") or 0,
            each.get("description") or "",
            each["jsonPath"],
        )
        for each in found
    )


def resource_of(crd: dict[str, Any], version: dict[str, Any], columns: tuple[Column, ...]) -> Resource:
    """Return the resource of one version for the registry; names are those accepted, where some are."""
    spec = crd["spec"]
    accepted = (crd.get("status") or {}).get("acceptedNames") or {}
    names = accepted if accepted.get("plural") else spec["names"]
    kind, group = names["kind"], spec["group"]
    subresources = []
    declared = version.get("subresources") or {}
    if declared.get("status") is not None:
        subresources.append(Subresource("status", kind, _SUBRESOURCE_VERBS, group, version["name"]))
    if declared.get("scale"):
        subresources.append(Subresource("scale", "Scale", _SUBRESOURCE_VERBS, "autoscaling", "v1"))
    return Resource(
        group=group,
        version=version["name"],
        resource=names["plural"],
        kind=kind,
        singular=names.get("singular") or kind.lower(),
        namespaced=spec["scope"] == "Namespaced",
        verbs=_VERBS,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(subresources),
        columns=columns,
        list_kind=names.get("listKind") or f"{kind}List",
        storage=bool(version.get("storage")),
        custom=True,
    )
