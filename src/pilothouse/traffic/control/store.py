"""What caches have of the objects that matter, kept as they change; and what of a change matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.kinds.structs import ConfigMap, EndpointSlice, Namespace, Resource, Secret, Service

from .snapshot import SEEN, Key, Snapshot, key_of, service_of

__all__ = ["Store"]


class Store:
    """The objects by kind. The endpoint slices of a Service are another sequence whenever one of them changes."""

    def __init__(self) -> None:
        self._objects: Final[dict[type[Resource], dict[Key, Resource]]] = {kind: {} for kind in SEEN}
        self._slices: Final[dict[Key, tuple[EndpointSlice, ...]]] = {}

    @property
    def objects(self) -> Mapping[type[Resource], Mapping[Key, Resource]]:
        """The objects as they are now."""
        return self._objects

    def snapshot(self) -> Snapshot:
        """Return what there is now; it is good until the next change."""
        return Snapshot(self._objects, self._slices)

    def put(self, obj: Resource) -> bool:
        """Take an object that is new or has changed; say whether that may change what is translated."""
        kind, key = type(obj), key_of(obj)
        before = self._objects[kind].get(key)
        self._objects[kind][key] = obj
        if isinstance(obj, EndpointSlice):
            self._drop_slice(before)
            service = service_of(obj)
            self._slices[service] = (*self._slices.get(service, ()), obj)
            return True
        return before is None or _matters(before, obj)

    def remove(self, kind: type[Resource], gone: Resource | DeletedFinalStateUnknown[Resource]) -> bool:
        """Forget an object that is gone; say whether that may change what is translated."""
        if isinstance(gone, DeletedFinalStateUnknown):
            namespace, _, name = gone.key.rpartition("/")
            key = (namespace, name)
        else:
            key = key_of(gone)
        before = self._objects[kind].pop(key, None)
        self._drop_slice(before)
        return before is not None

    def _drop_slice(self, before: Resource | None) -> None:
        if not isinstance(before, EndpointSlice):
            return
        service = service_of(before)
        if left := tuple(each for each in self._slices.get(service, ()) if each is not before):
            self._slices[service] = left
        else:
            self._slices.pop(service, None)


def _material(obj: Secret | ConfigMap) -> tuple[object, ...]:
    names = ("tls.crt", "tls.key", "url", "key", "previous") if isinstance(obj, Secret) else ("ca.crt",)
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
