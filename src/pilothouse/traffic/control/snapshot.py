"""All objects that a configuration is made of, at one moment, and how they are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol, TypeVar

from pilothouse.kinds.structs import (
    ConfigMap,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Resource,
    Secret,
    Service,
)

from .kinds import (
    BackendTLSPolicy,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    ReferenceGrant,
    RegionWeights,
    TCPRoute,
    TLSRoute,
    TrafficPolicy,
)

__all__ = ["SEEN", "SERVICE_LABEL", "Key", "Look", "Snapshot", "by_age", "key_of", "seconds_of", "service_of"]

R = TypeVar("R", bound=Resource)
Key = tuple[str, str]
"""A namespace, empty for what is of the whole cluster, and a name."""

SERVICE_LABEL: Final = "kubernetes.io/service-name"
SEEN: Final[tuple[type[Resource], ...]] = (
    GatewayClass,
    Gateway,
    ListenerSet,
    HTTPRoute,
    GRPCRoute,
    TLSRoute,
    TCPRoute,
    ReferenceGrant,
    BackendTLSPolicy,
    RegionWeights,
    TrafficPolicy,
    Ingress,
    IngressClass,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Namespace,
)
"""The kinds that a snapshot is made of."""


def key_of(obj: Resource) -> Key:
    """Return an object's namespace and name."""
    return obj.metadata.namespace, obj.metadata.name


def service_of(obj: EndpointSlice) -> Key:
    """Return whose endpoints a slice has; an empty name for nobody's."""
    return obj.metadata.namespace, obj.metadata.labels.get(SERVICE_LABEL, "")


def seconds_of(obj: Resource) -> float:
    """Return when an object was made, in seconds since 1970; 0 where that is not known, as in files."""
    from datetime import datetime  # noqa: PLC0415  beside its only use

    made = obj.metadata.creation_timestamp
    return datetime.fromisoformat(str(made)).timestamp() if made else 0.0


def by_age(objects: Iterable[R]) -> list[R]:
    """Return objects in the order in which they have precedence: the oldest first, then by name."""
    return sorted(objects, key=lambda obj: (str(obj.metadata.creation_timestamp or ""), key_of(obj)))


class Look(Protocol):
    """Gives an object, None where it is not there."""

    def __call__(self, kind: type[R], key: Key, /) -> R | None: ...


@dataclass(frozen=True)
class Snapshot:
    """The objects by kind; nobody changes them. What is looked up is indexed once, when it is first asked for."""

    objects: Mapping[type[Resource], Mapping[Key, Resource]] = field(default_factory=dict)
    indexed: Mapping[Key, Sequence[EndpointSlice]] | None = None
    """The endpoint slices of each Service, where somebody keeps them so."""
    _sorted: dict[type[Resource], Sequence[Resource]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, *objects: Resource) -> Snapshot:
        """Make one of these objects."""
        found: dict[type[Resource], dict[Key, Resource]] = {}
        for obj in objects:
            found.setdefault(type(obj), {})[key_of(obj)] = obj
        return cls(found)

    def all(self, kind: type[R]) -> Sequence[R]:
        """Return all objects of a kind, the oldest first."""
        found = self._sorted.get(kind)
        if found is None:
            found = self._sorted[kind] = by_age(self.objects.get(kind, {}).values())
        return found  # type: ignore[return-value]

    def get(self, kind: type[R], key: Key) -> R | None:
        """Return an object, None where it is not there."""
        return self.objects.get(kind, {}).get(key)  # type: ignore[return-value]

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """Return the labels of a namespace; its name is one of them also where no object says so."""
        found = self.get(Namespace, ("", namespace))
        return {"kubernetes.io/metadata.name": namespace, **(found.metadata.labels if found else {})}

    @cached_property
    def slices(self) -> Mapping[Key, Sequence[EndpointSlice]]:
        """The endpoint slices of each Service."""
        if self.indexed is not None:
            return self.indexed
        found: dict[Key, list[EndpointSlice]] = {}
        for each in self.all(EndpointSlice):
            found.setdefault(service_of(each), []).append(each)
        return found

    @cached_property
    def grants(self) -> frozenset[tuple[str, str, str, str, str, str, str]]:
        """What may be referred to: from group, kind, namespace; to group, kind, namespace, name ("" for all)."""
        return frozenset(
            (one.group, one.kind, one.namespace, to.group, to.kind, grant.metadata.namespace, to.name or "")
            for grant in self.all(ReferenceGrant)
            for one in grant.spec.from_
            for to in grant.spec.to
        )

    def may_refer(self, source: tuple[str, str, str], group: str, kind: str, target: Key) -> bool:
        """Say whether an object (group, kind, namespace) may refer to another, which a grant allows beyond its own."""
        namespace, name = target
        if source[2] == namespace:
            return True
        return any((*source, group, kind, namespace, which) in self.grants for which in ("", name))
