"""Discovery in one document: `APIGroupDiscoveryList` with every group, version and resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse.apiserver.discovery.legacy import Group, subresources_of, verbs_of
from pilothouse.kinds.registry import Registry, Resource, Subresource

__all__ = ["AGGREGATED_KINDS", "GROUP", "LIST_KIND", "aggregated_core", "aggregated_groups", "fetched", "media_type"]

GROUP: Final = "apidiscovery.k8s.io"
LIST_KIND: Final = "APIGroupDiscoveryList"
AGGREGATED_KINDS: Final = frozenset((GROUP, version, LIST_KIND) for version in ("v2", "v2beta1"))


def media_type(version: str) -> str:
    """Return the `Content-Type` of a document in one of its versions."""
    return f"application/json;g={GROUP};v={version};as={LIST_KIND}"


def aggregated_core(registry: Registry, version: str) -> dict[str, Any]:
    """Return the aggregated document of `/api`."""
    served = [_version(registry, "", one) for one in registry.versions("")]
    return _list([{"metadata": {}, "versions": served}], version)


def aggregated_groups(registry: Registry, found: Iterable[Group], version: str) -> dict[str, Any]:
    """Return the aggregated document of `/apis`; versions that another server does not answer for now are stale."""
    items = []
    for group in found:
        served = [
            _elsewhere(group, one) if one in group.elsewhere else _version(registry, group.name, one)
            for one in group.versions
        ]
        items.append({"metadata": {"name": group.name}, "versions": served})
    return _list(items, version)


def _list(items: list[dict[str, Any]], version: str) -> dict[str, Any]:
    return {"kind": LIST_KIND, "apiVersion": f"{GROUP}/{version}", "metadata": {}, "items": items}


def _elsewhere(group: Group, version: str) -> dict[str, Any]:
    found = group.elsewhere[version]
    made: dict[str, Any] = {"version": version}
    if found.resources:
        made["resources"] = list(found.resources)
    current = found.available and found.resources is not None
    return made | {"freshness": "Current" if current else "Stale"}


def _version(registry: Registry, group: str, version: str) -> dict[str, Any]:
    listed = [_resource(resource) for resource in registry.resources(group, version)]
    return {"version": version, "resources": listed, "freshness": "Current"}


def _resource(resource: Resource) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resource": resource.resource,
        "responseKind": _kind(resource, resource.group, resource.version, resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": verbs_of(resource),
    }
    if resource.short_names:
        made["shortNames"] = list(resource.short_names)
    if resource.categories:
        made["categories"] = list(resource.categories)
    if resource.subresources:
        made["subresources"] = [_subresource(resource, one) for one in subresources_of(resource)]
    return made


def _subresource(resource: Resource, one: Subresource) -> dict[str, Any]:
    kind = _kind(resource, one.group, one.version, one.kind)
    return {"subresource": one.name, "responseKind": kind, "verbs": list(one.verbs)}


def _kind(resource: Resource, group: str, version: str, kind: str) -> dict[str, str]:
    """Tell a kind; built-in resources leave out the group and version that are their own."""
    if not resource.custom and (group, version) == (resource.group, resource.version):
        group = version = ""
    return {"group": group, "version": version, "kind": kind}


def fetched(document: Mapping[str, Any], group: str, version: str) -> tuple[dict[str, Any], ...] | None:
    """Return the resources of a group and version in a document that another server told.

    document: an APIGroupDiscoveryList, or the APIResourceList of that group and version. None where it is neither or
    has nothing about them.
    """
    if document.get("kind") == LIST_KIND:
        for item in document.get("items") or ():
            if (item.get("metadata") or {}).get("name") == group:
                for one in item.get("versions") or ():
                    if one.get("version") == version:
                        return tuple(one.get("resources") or ())
        return None
    if document.get("kind") != "APIResourceList" or document.get("groupVersion") != f"{group}/{version}":
        return None
    found: dict[str, dict[str, Any]] = {}
    for told in document.get("resources") or ():
        name, slash, sub = str(told.get("name", "")).partition("/")
        kind = {"group": told.get("group", ""), "version": told.get("version", ""), "kind": told.get("kind", "")}
        if not slash:
            found[name] = {**_from_legacy(told), "responseKind": kind}
        elif name in found:
            made = {"subresource": sub, "responseKind": kind, "verbs": list(told.get("verbs") or ())}
            found[name].setdefault("subresources", []).append(made)
    return tuple(found.values())


def _from_legacy(told: Mapping[str, Any]) -> dict[str, Any]:
    made = {
        "resource": told["name"],
        "scope": "Namespaced" if told.get("namespaced") else "Cluster",
        "singularResource": told.get("singularName", ""),
        "verbs": list(told.get("verbs") or ()),
    }
    return made | {name: list(told[name]) for name in ("shortNames", "categories") if told.get(name)}
