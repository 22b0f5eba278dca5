"""Routes of Gateway API by the client: a cache that begins when a rollout first names one, and writes seen at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from pilothouse.client import Client, UnknownKind, ignore_not_found
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.status import Conflict, NotFound
from pilothouse.kinds.structs import to_dict
from pilothouse.operator import Controller, Request
from pilothouse.operator.owners import owner_reference

from .routes import splits
from .routing import ROUTE_KINDS
from .view import RouteKey

__all__ = ["GatewayRoutes", "Objects", "Traffic"]

_GROUP: Final = "gateway.networking.k8s.io"
_ROUTES: Final = f"{_GROUP}/v1"
_VERSIONS: Final = {"TCPRoute": ("v1", "v1alpha2"), "TLSRoute": ("v1", "v1alpha3", "v1alpha2")}
"""Of kinds that are not v1 everywhere, the newest first."""
_OWN: Final = "pilothouse.dev/v1alpha1"
_REGIONS: Final = "RegionWeights"
_Tree = dict[str, Any]


class Traffic(Protocol):
    """Where routes are read and written: Gateway API's by default."""

    async def routes(self, keys: Sequence[RouteKey]) -> Mapping[RouteKey, Mapping[str, Any]]:
        """Return those routes that are there, whole, as JSON has them."""

    async def regions(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return the weights of regions, None where there are none."""

    async def naming(self, namespace: str, services: Collection[str]) -> Mapping[RouteKey, Mapping[str, Any]]:
        """Return the routes of a namespace that have a rule with all of some services."""

    async def write_route(self, key: RouteKey, wanted: Mapping[str, Any]) -> None:
        """Replace a route by one write. Raises Conflict where it has changed."""

    async def write_regions(
        self, namespace: str, name: str, weights: Sequence[Mapping[str, Any]], owner: Rollout
    ) -> None:
        """Set the weights of regions; none removes them."""


class Objects:
    """Objects without a type: caches that begin with their first use, in which own writes are seen at once."""

    def __init__(self, client: Client, controller: Callable[[], Controller[Any]]) -> None:
        self._client = client
        self._controller = controller
        self._written: dict[tuple[str, str, str], _Tree] = {}

    async def get(
        self, api_version: str, kind: str, key: tuple[str, str], mapping: Callable[[_Tree], Iterable[Request]]
    ) -> _Tree | None:
        """Return an object by namespace and name; None where it, or its whole kind, is not there.

        mapping: whose turn it is when an object of the kind changes.
        """
        try:
            informer = await self._controller().watch(self._client.dynamic(api_version, kind), mapping)
        except UnknownKind:
            return None
        await informer.wait_synced()
        return self._newest(kind, key, informer.indexer.get("/".join(key)))

    async def of(
        self, api_version: str, kind: str, namespace: str, mapping: Callable[[_Tree], Iterable[Request]]
    ) -> list[_Tree]:
        """Return the objects of a kind in a namespace; none where the kind is not there. mapping: as `get`."""
        try:
            informer = await self._controller().watch(self._client.dynamic(api_version, kind), mapping)
        except UnknownKind:
            return []
        await informer.wait_synced()
        listed = [each for each in informer.indexer.list() if each["metadata"].get("namespace") == namespace]
        return [self._newest(kind, (namespace, each["metadata"]["name"]), each) or each for each in listed]

    def _newest(self, kind: str, key: tuple[str, str], cached: _Tree | None) -> _Tree | None:
        """Return what we have written ourselves where the cache does not have it yet."""
        written = self._written.get((kind, *key))
        if written is None or cached is None or _version(cached) >= _version(written):
            self._written.pop((kind, *key), None)
            return cached
        return written

    async def replace(self, kind: str, wanted: _Tree) -> None:
        """Replace an object. Raises Conflict where it has changed; it is read anew then for the next time."""
        api_version, metadata = wanted.get("apiVersion") or _ROUTES, wanted["metadata"]
        handle = self._client.dynamic(api_version, kind)
        place = (kind, metadata["namespace"], metadata["name"])
        try:
            self._written[place] = await handle.update(wanted, metadata["namespace"])
        except Conflict:
            present = await ignore_not_found(handle.get(metadata["name"], metadata["namespace"]))
            if present is not None:
                self._written[place] = present
            raise

    async def apply(self, wanted: _Tree) -> None:
        """Apply an object. Raises ApiStatus, UnknownKind and OSError."""
        metadata, kind = wanted["metadata"], str(wanted["kind"])
        handle = self._client.dynamic(str(wanted["apiVersion"]), kind)
        place = (kind, metadata["namespace"], metadata["name"])
        self._written[place] = await handle.apply(wanted, metadata["namespace"], force=True)


def _version(obj: Mapping[str, Any]) -> int:
    text = str(obj["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdecimal() else 0


class GatewayRoutes:
    """Routes and region weights as objects of the cluster. mapping: whose turn it is when one of a kind changes."""

    def __init__(
        self, client: Client, objects: Objects, mapping: Callable[[str], Callable[[_Tree], Iterable[Request]]]
    ) -> None:
        self._client = client
        self._objects = objects
        self._mapping = mapping

    async def routes(self, keys: Sequence[RouteKey]) -> Mapping[RouteKey, Mapping[str, Any]]:
        """Return those routes that are there."""
        made: dict[RouteKey, Mapping[str, Any]] = {}
        for key in keys:
            for version in _VERSIONS.get(key.kind, ("v1",)):
                found = await self._objects.get(f"{_GROUP}/{version}", key.kind, key[1:], self._mapping(key.kind))
                if found is not None:
                    made[key] = found
                    break
        return made

    async def naming(self, namespace: str, services: Collection[str]) -> Mapping[RouteKey, Mapping[str, Any]]:
        """Return the routes of a namespace that have a rule with all of some services."""
        made: dict[RouteKey, Mapping[str, Any]] = {}
        for kind in ROUTE_KINDS:
            for version in _VERSIONS.get(kind, ("v1",)):
                for route in await self._objects.of(f"{_GROUP}/{version}", kind, namespace, self._mapping(kind)):
                    if splits(route, services):
                        made.setdefault(RouteKey(kind, namespace, route["metadata"]["name"]), route)
        return made

    async def regions(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return the weights of regions."""
        return await self._objects.get(_OWN, _REGIONS, (namespace, name), self._mapping(_REGIONS))

    async def write_route(self, key: RouteKey, wanted: Mapping[str, Any]) -> None:
        """Replace a route."""
        await self._objects.replace(key.kind, {"apiVersion": _ROUTES, "kind": key.kind, **wanted})

    async def write_regions(
        self, namespace: str, name: str, weights: Sequence[Mapping[str, Any]], owner: Rollout
    ) -> None:
        """Apply the weights of regions, or delete the object. Raises ApiStatus, UnknownKind and OSError."""
        if not weights:
            try:
                await self._client.dynamic(_OWN, _REGIONS).delete(name, namespace)
            except (NotFound, UnknownKind):
                return
            return
        metadata: _Tree = {"name": name, "namespace": namespace}
        if namespace == owner.metadata.namespace:
            metadata["ownerReferences"] = [to_dict(owner_reference(owner))]
        wanted = {"apiVersion": _OWN, "kind": _REGIONS, "metadata": metadata, "spec": {"weights": [*weights]}}
        await self._objects.apply(wanted)
