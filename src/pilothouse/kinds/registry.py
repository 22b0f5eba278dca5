"""Which resources there are: names, scope, verbs, subresources and columns, in the order of discovery.

The built-in ones come from `data/resources.json` (Kubernetes 1.36, generally available versions). A registry never
changes: custom resources give a new one, which shares all it can with the old.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

import msgspec

__all__ = ["Column", "Registry", "Resource", "Subresource", "builtin", "version_order"]

# Subresources whose kind is of another group and version than the resource they belong to.
_FOREIGN = {
    "Scale": ("autoscaling", "v1"),
    "Eviction": ("policy", "v1"),
    "TokenRequest": ("authentication.k8s.io", "v1"),
}

# Kubernetes 1.36 still keeps these in a version that is not served here by default.
_HASHED_AS = {
    "customresourcedefinitions.apiextensions.k8s.io": "v1beta1",
    "mutatingadmissionpolicies.admissionregistration.k8s.io": "v1beta1",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": "v1beta1",
}

# Served in two groups, kept once: (group, resource) -> group it is stored under.
_COHABITING = {("events.k8s.io", "events"): ""}


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column. `priority` 0 is always shown; `json_path` is empty for built-in kinds."""

    name: str
    type: str
    format: str = ""
    priority: int = 0
    description: str = ""
    json_path: str = ""


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource (`status`, `scale`, `log`, ...). `group` and `version` are those of its kind."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str
    version: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one group and version; `resource` is the plural in paths, the core group the empty string.

    storage: whether objects are kept in this version (exactly one version of a resource is).
    custom: whether it comes from a custom resource definition.
    """

    group: str
    version: str
    resource: str
    kind: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    columns: tuple[Column, ...] = ()
    list_kind: str = ""
    storage: bool = True
    custom: bool = False

    def __post_init__(self) -> None:
        if not self.list_kind:
            object.__setattr__(self, "list_kind", f"{self.kind}List")

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path_prefix(self) -> str:
        """The path of its group and version: `/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def full_name(self) -> str:
        """The name that is unique across groups: `pods`, `deployments.apps`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def key(self) -> tuple[str, str, str]:
        """Group, version and plural."""
        return self.group, self.version, self.resource

    @property
    def gvk(self) -> tuple[str, str, str]:
        """Group, version and kind."""
        return self.group, self.version, self.kind

    def subresource(self, name: str) -> Subresource | None:
        """Return the subresource of this name."""
        return next((found for found in self.subresources if found.name == name), None)


class Registry:
    """All resources at one moment; a group's versions are in the order of preference."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._groups: dict[str, dict[str, dict[str, Resource]]] = {}
        for resource in resources:
            versions = self._groups.setdefault(resource.group, {})
            versions.setdefault(resource.version, {})[resource.resource] = resource

    def __iter__(self) -> Iterator[Resource]:
        for versions in self._groups.values():
            for found in versions.values():
                yield from found.values()

    def __len__(self) -> int:
        return sum(len(found) for versions in self._groups.values() for found in versions.values())

    def get(self, group: str, version: str, resource: str) -> Resource | None:
        """Return the resource with this plural, as a path names it."""
        return self._groups.get(group, {}).get(version, {}).get(resource)

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """Return the resource whose objects are of this kind."""
        return self._by_kind.get((group, version, kind))

    def find(self, name: str) -> Resource | None:
        """Return the preferred resource that a person means by `name`.

        That is a plural, singular or short name or a kind, in any case, alone or followed by its group (`deploy.apps`)
        or by version and group (`deployments.v1.apps`). Among several, groups and versions count in the order of
        discovery, full names before short ones.
        """
        lowered = name.lower()
        if found := self._by_name.get(lowered):
            return found
        first, _, rest = lowered.partition(".")
        version, _, group = rest.partition(".")
        for wanted in self._called.get(first, ()):
            if rest == wanted.group or (version, group) == (wanted.version, wanted.group):
                return wanted
        return None

    def groups(self) -> tuple[str, ...]:
        """Return all groups in the order of discovery, the core group first."""
        return tuple(self._groups)

    def versions(self, group: str) -> tuple[str, ...]:
        """Return a group's versions, the preferred one first; empty where there is no such group."""
        return tuple(self._groups.get(group, ()))

    def resources(self, group: str, version: str) -> tuple[Resource, ...]:
        """Return all resources of a group and version, in the order of discovery."""
        return tuple(self._groups.get(group, {}).get(version, {}).values())

    def category(self, name: str) -> tuple[Resource, ...]:
        """Return the preferred version of each resource in this category (`all`, `api-extensions`)."""
        found: dict[str, Resource] = {}
        for resource in self:
            if name in resource.categories:
                found.setdefault(resource.full_name, resource)
        return tuple(found.values())

    def storage(self, resource: Resource) -> Resource:
        """Return the resource in whose group and version objects of `resource` are kept, which may be itself.

        Raises LookupError where no version of it is kept.
        """
        group = _COHABITING.get((resource.group, resource.resource), resource.group)
        for found in self._groups.get(group, {}).values():
            kept = found.get(resource.resource)
            if kept is not None and kept.storage:
                return kept
        raise LookupError(f"{resource.full_name}: none of its versions is the one kept; mark one with storage")

    def storage_version_hash(self, resource: Resource) -> str:
        """Return discovery's `storageVersionHash`: 8 bytes of SHA-256 over group/version/kind as kept, in base64."""
        group, version, kind = self.storage(resource).gvk
        version = _HASHED_AS.get(resource.full_name, version)
        kept = f"{group}/{version}/{kind}"
        return base64.b64encode(hashlib.sha256(kept.encode()).digest()[:8]).decode()

    def with_resources(self, added: Iterable[Resource] = (), removed: Iterable[tuple[str, str, str]] = ()) -> Registry:
        """Return a registry with resources added (or replaced) and others gone, those by group, version and plural.

        Groups that change are ordered anew: versions by `version_order`, resources by name, and the groups after the
        built-in ones by name. Other groups are shared. Raises ValueError for an addition to a group with built-in
        resources, and KeyError for a removal of what is not there.
        """
        made = Registry(())
        made._groups = dict(self._groups)
        changed: dict[str, dict[str, dict[str, Resource]]] = {}

        def own(group: str) -> dict[str, dict[str, Resource]]:
            if group not in changed:
                changed[group] = {version: dict(found) for version, found in self._groups.get(group, {}).items()}
            return changed[group]

        for group, version, plural in removed:
            del own(group)[version][plural]
        for resource in added:
            own(resource.group).setdefault(resource.version, {})[resource.resource] = resource
        for group, versions in changed.items():
            if not all(resource.custom for found in versions.values() for resource in found.values()):
                raise ValueError(f"group {group!r} is built in; custom resources need a group of their own")
            made._groups.pop(group, None)
            if ordered := _ordered(versions):
                made._groups[group] = ordered
        made._sort_custom_groups()
        return made

    def _sort_custom_groups(self) -> None:
        """Put groups of custom resources after the others, by name."""

        def rank(item: tuple[str, dict[str, dict[str, Resource]]]) -> str:
            first = next(iter(next(iter(item[1].values())).values()))
            return item[0] if first.custom else ""

        self._groups = dict(sorted(self._groups.items(), key=rank))

    @cached_property
    def _by_kind(self) -> Mapping[tuple[str, str, str], Resource]:
        found: dict[tuple[str, str, str], Resource] = {}
        for resource in self:
            found.setdefault(resource.gvk, resource)
        return found

    @cached_property
    def _called(self) -> Mapping[str, list[Resource]]:
        found: dict[str, list[Resource]] = {}
        everything = list(self)
        for resource in everything:
            for name in dict.fromkeys((resource.resource, resource.singular, resource.kind.lower())):
                found.setdefault(name, []).append(resource)
        for resource in everything:
            for name in resource.short_names:
                found.setdefault(name, []).append(resource)
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, Resource]:
        return {name: found[0] for name, found in self._called.items()}


def _ordered(versions: dict[str, dict[str, Resource]]) -> dict[str, dict[str, Resource]]:
    kept = sorted((version for version, found in versions.items() if found), key=version_order)
    return {version: dict(sorted(versions[version].items())) for version in kept}


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def version_order(version: str) -> tuple[int, int, int, str]:
    """Return a key that sorts versions as Kubernetes prefers them: v10, v2, v1beta2, v1alpha1, then others by name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return 3, 0, 0, version
    stage = (None, "beta", "alpha").index(match[2])
    return stage, -int(match[1]), -int(match[3] or 0), ""


@cache
def builtin() -> Registry:
    """Return the registry of the resources that are built in."""
    place = resources.files(__package__) / "data" / "resources.json"
    listed = msgspec.json.decode(place.read_bytes())["resources"]
    kept: set[tuple[str, str]] = set()
    made = []
    for facts in listed:
        name = facts["group"], facts["resource"]
        made.append(_resource(facts, storage=name not in kept and name not in _COHABITING))
        kept.add(name)
    return Registry(made)


def _resource(facts: dict[str, Any], *, storage: bool) -> Resource:
    group, version = facts["group"], facts["version"]
    return Resource(
        group=group,
        version=version,
        resource=facts["resource"],
        kind=facts["kind"],
        singular=facts["singular"],
        namespaced=facts["namespaced"],
        verbs=tuple(facts["verbs"]),
        short_names=tuple(facts["shortNames"]),
        categories=tuple(facts["categories"]),
        subresources=tuple(_subresource(inner, group, version) for inner in facts["subresources"]),
        columns=tuple(Column(**column) for column in facts.get("columns", ())),
        storage=storage,
    )


def _subresource(facts: dict[str, Any], group: str, version: str) -> Subresource:
    group, version = _FOREIGN.get(facts["kind"], (group, version))
    return Subresource(facts["name"], facts["kind"], tuple(facts["verbs"]), group, version)
