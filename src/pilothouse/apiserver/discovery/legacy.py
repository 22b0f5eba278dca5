"""Discovery one document at a time, as every client knows it: `/api`, `/apis`, and one per group and per version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.kinds.registry import Registry, Resource, Subresource, version_order

__all__ = [
    "CUSTOM_PRIORITY",
    "CUSTOM_VERBS",
    "AggregatedVersion",
    "Group",
    "api_versions",
    "group_document",
    "group_list",
    "group_priority",
    "groups",
    "resource_list",
]

CUSTOM_VERBS: Final = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""The order in which verbs of custom resources are told."""

CUSTOM_PRIORITY: Final = 1000
"""The priority of groups of custom resources among all groups."""

_PRIORITIES: Final = {
    "apiregistration.k8s.io": 20000,
    "apps": 17800,
    "events.k8s.io": 17750,
    "authentication.k8s.io": 17700,
    "authorization.k8s.io": 17600,
    "autoscaling": 17500,
    "batch": 17400,
    "certificates.k8s.io": 17300,
    "networking.k8s.io": 17200,
    "policy": 17100,
    "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800,
    "admissionregistration.k8s.io": 16700,
    "apiextensions.k8s.io": 16700,
    "scheduling.k8s.io": 16600,
    "coordination.k8s.io": 16500,
    "node.k8s.io": 16300,
    "discovery.k8s.io": 16200,
    "resource.k8s.io": 16200,
    "flowcontrol.apiserver.k8s.io": 16100,
    "internal.apiserver.k8s.io": 16000,
}
_SUBRESOURCE_ORDER: Final = {"status": 0, "scale": 1}


@dataclass(frozen=True, slots=True)
class AggregatedVersion:
    """A group and version that another server serves.

    group_priority, version_priority: as its APIService has them. available: whether that server answers now.
    resources: as aggregated discovery v2 tells them (`APIResourceDiscovery`), None where not fetched yet.
    """

    group: str
    version: str
    group_priority: int = 0
    version_priority: int = 0
    available: bool = True
    resources: tuple[dict[str, Any], ...] | None = None

    def __hash__(self) -> int:
        return hash((self.group, self.version))


@dataclass(frozen=True, slots=True)
class Group:
    """A group with its versions, the preferred one first; `elsewhere` are those that other servers serve."""

    name: str
    versions: tuple[str, ...]
    elsewhere: dict[str, AggregatedVersion]


def group_priority(group: str) -> int:
    """Return the priority of a group of this server among all groups; higher ones come first."""
    return _PRIORITIES.get(group, CUSTOM_PRIORITY)


def groups(registry: Registry, aggregated: Iterable[AggregatedVersion] = ()) -> tuple[Group, ...]:
    """Return all groups but the core group in the order of discovery; a version served here hides one elsewhere."""
    others: dict[str, dict[str, AggregatedVersion]] = {}
    for one in aggregated:
        if one.version not in registry.versions(one.group):
            others.setdefault(one.group, {})[one.version] = one
    names = dict.fromkeys([*registry.groups(), *others])
    made = [_group(name, registry, others.get(name, {})) for name in names if name]
    if others:
        made.sort(key=lambda group: (-_priority(group, registry), group.name))
    return tuple(made)


def _group(name: str, registry: Registry, elsewhere: dict[str, AggregatedVersion]) -> Group:
    versions = list(registry.versions(name))
    if elsewhere:
        own = {version: len(versions) - place for place, version in enumerate(versions)}
        added = sorted(elsewhere, key=lambda version: (-elsewhere[version].version_priority, version_order(version)))
        versions = sorted([*versions, *added], key=lambda version: version not in own)
    return Group(name, tuple(versions), elsewhere)


def _priority(group: Group, registry: Registry) -> int:
    own = group_priority(group.name) if registry.versions(group.name) else 0
    return max([own, *(one.group_priority for one in group.elsewhere.values())])


def api_versions(registry: Registry, server_address: str) -> dict[str, Any]:
    """Return the document of `/api`. server_address: host and port where clients reach this server."""
    return {
        "kind": "APIVersions",
        "versions": list(registry.versions("")),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def _group_fields(group: Group) -> dict[str, Any]:
    versions = [{"groupVersion": f"{group.name}/{version}", "version": version} for version in group.versions]
    return {"name": group.name, "versions": versions, "preferredVersion": versions[0]}


def group_list(found: Sequence[Group]) -> dict[str, Any]:
    """Return the document of `/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group_fields(group) for group in found]}


def group_document(group: Group) -> dict[str, Any]:
    """Return the document of `/apis/GROUP`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group_fields(group)}


def verbs_of(resource: Resource) -> list[str]:
    """Return a resource's verbs in the order in which they are told."""
    if not resource.custom:
        return list(resource.verbs)
    return [verb for verb in CUSTOM_VERBS if verb in resource.verbs]


def subresources_of(resource: Resource) -> Sequence[Subresource]:
    """Return a resource's subresources in the order in which they are told."""
    if not resource.custom:
        return resource.subresources
    return sorted(resource.subresources, key=lambda one: _SUBRESOURCE_ORDER.get(one.name, 2))


def resource_list(registry: Registry, group: str, version: str) -> dict[str, Any]:
    """Return the document of a group and version, `/api/v1` or `/apis/GROUP/VERSION`."""
    listed = []
    for resource in registry.resources(group, version):
        listed.append(_resource(registry, resource))
        listed.extend(_subresource(resource, one) for one in subresources_of(resource))
    # the core group's documents have never had an apiVersion
    head = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group else {})
    return head | {"groupVersion": f"{group}/{version}" if group else version, "resources": listed}


def _resource(registry: Registry, resource: Resource) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": resource.resource,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs_of(resource),
    }
    if resource.short_names:
        made["shortNames"] = list(resource.short_names)
    if resource.categories:
        made["categories"] = list(resource.categories)
    if "watch" in resource.verbs:
        made["storageVersionHash"] = registry.storage_version_hash(resource)
    return made


def _subresource(resource: Resource, one: Subresource) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": f"{resource.resource}/{one.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if (one.group, one.version) != (resource.group, resource.version):
        made |= {"group": one.group, "version": one.version}
    return made | {"kind": one.kind, "verbs": list(one.verbs)}
