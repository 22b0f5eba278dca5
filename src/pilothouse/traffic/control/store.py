"""What caches have of the objects that matter, kept as they change; and what of a change matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.kinds.structs import ConfigMap, EndpointSlice, Namespace, Resource, Secret, Service

from .kinds import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute
from .snapshot import SEEN, SERVICE_LABEL, Key, Snapshot, key_of

__all__ = ["Store"]

_ROUTES: Final = frozenset({HTTPRoute, GRPCRoute, TLSRoute, TCPRoute})


class Store:
    """The objects by kind. is_dirty: whether more than routes and endpoints changed; has_routes: whether routes did.

    services: those whose endpoints changed.
    touched: objects whose status alone changed, so that somebody may have undone what we wrote.
    """

    def __init__(self) -> None:
        self._objects: Final[dict[type[Resource], dict[Key, Resource]]] = {kind: {} for kind in SEEN}
        self._slices: Final[dict[Key, dict[Key, EndpointSlice]]] = {}
        self.is_dirty = True
        self.has_routes = False
        self.services: set[Key] = set()
        self.touched: set[tuple[type[Resource], Key]] = set()

    @property
    def objects(self) -> Mapping[type[Resource], Mapping[Key, Resource]]:
        """The objects as they are now."""
        return self._objects

    def snapshot(self) -> Snapshot:
        """Return what there is now; it is good until the next change."""
        return Snapshot(self._objects, {key: list(found.values()) for key, found in self._slices.items() if found})

    def of_services(self, services: set[Key]) -> Snapshot:
        """Return what there is of the endpoints of some Services alone."""
        return Snapshot({}, {key: list(self._slices.get(key, {}).values()) for key in services})

    def put(self, obj: Resource) -> None:
        """Take an object that is new or has changed."""
        kind, key = type(obj), key_of(obj)
        before = self._objects[kind].get(key)
        self._objects[kind][key] = obj
        if isinstance(obj, EndpointSlice):
            self._put_slice(obj, before)
        elif before is None or _matters(before, obj):
            self._mark(kind)
        else:
            self.touched.add((kind, key))

    def remove(self, kind: type[Resource], gone: Resource | DeletedFinalStateUnknown[Resource]) -> None:
        """Forget an object that is gone."""
        if isinstance(gone, DeletedFinalStateUnknown):
            namespace, _, name = gone.key.rpartition("/")
            key = (namespace, name)
        else:
            key = key_of(gone)
        before = self._objects[kind].pop(key, None)
        if isinstance(before, EndpointSlice):
            self._drop_slice(before)
        elif before is not None and (not isinstance(before, Secret | ConfigMap) or _material(before)):
            self._mark(kind)

    def _mark(self, kind: type[Resource]) -> None:
        if kind in _ROUTES:
            self.has_routes = True
        else:
            self.is_dirty = True

    def _put_slice(self, obj: EndpointSlice, before: Resource | None) -> None:
        if isinstance(before, EndpointSlice):
            self._drop_slice(before)
        service = _service_of(obj)
        self._slices.setdefault(service, {})[key_of(obj)] = obj
        self.services.add(service)

    def _drop_slice(self, before: EndpointSlice) -> None:
        service = _service_of(before)
        self._slices.get(service, {}).pop(key_of(before), None)
        self.services.add(service)


def _service_of(obj: EndpointSlice) -> Key:
    return obj.metadata.namespace, obj.metadata.labels.get(SERVICE_LABEL, "")


def _material(obj: Secret | ConfigMap) -> tuple[object, ...]:
    names = ("tls.crt", "tls.key", "url", "key") if isinstance(obj, Secret) else ("ca.crt",)
    return tuple(obj.data.get(name) for name in names)


def _matters(before: Resource, after: Resource) -> bool:
    """Say whether a change may change what is translated: a status alone does not."""
    if before.metadata.uid != after.metadata.uid:
        return True
    if isinstance(before, Secret | ConfigMap) and isinstance(after, Secret | ConfigMap):
        return _material(before) != _material(after)
    if isinstance(before, Namespace):
        return before.metadata.labels != after.metadata.labels
    if isinstance(before, Service) and isinstance(after, Service):
        return before.spec != after.spec
    if not after.metadata.generation:
        return True
    return (
        before.metadata.generation != after.metadata.generation
        or before.metadata.annotations != after.metadata.annotations
    )
