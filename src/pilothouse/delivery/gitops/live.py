"""What is in the cluster: caches of the kinds that applications have, with our own writes seen at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from pilothouse.client import Client
from pilothouse.client.errors import UnknownKind
from pilothouse.client.informer import Informer
from pilothouse.client.resourceclient import ResourceClient
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.rollouts.claims import ROUTE_GROUP, ROUTE_KINDS, Claim, claims_of
from pilothouse.kinds.registry import builtin
from pilothouse.operator import Controller, Request

from .keeping import ROLLOUT, is_shared
from .targets import Key, group_of, owner_of

__all__ = ["LiveObjects"]

Object = dict[str, Any]
_INDEX: Final = "application"
_CLAIMS: Final = "claims"
_MAX_WRITES: Final = 20_000
_SYNC_SECONDS: Final = 30.0


class _Written(NamedTuple):
    """An object as a write left it; None where that was its deletion."""

    obj: Object | None
    version: int
    uid: str


class LiveObjects:
    """The objects of the cluster, by key. requests: whose application an owner's mark means."""

    def __init__(self, client: Client, requests: Callable[[str], Request]) -> None:
        self._client = client
        self._requests = requests
        self._controller: Controller[Any] | None = None
        self._informers: dict[tuple[str, str], Informer[Object]] = {}
        self._versions: dict[tuple[str, str], str] = {}
        self._handles: dict[tuple[str, str], ResourceClient[Object]] = {}
        self._scopes: dict[tuple[str, str], bool] = {}
        self._written: OrderedDict[Key, _Written] = OrderedDict()

    def attach(self, controller: Controller[Any]) -> None:
        """Say which controller reconciles applications when their objects change."""
        self._controller = controller

    def handle(self, api_version: str, kind: str) -> ResourceClient[Object]:
        """Return the calls about objects of a kind."""
        found = self._handles.get((api_version, kind))
        if found is None:
            found = self._handles[api_version, kind] = self._client.dynamic(api_version, kind)
        return found

    def is_namespaced(self, api_version: str, kind: str) -> bool:
        """Whether objects of a kind are of namespaces; what `ensure` has not found is taken to be."""
        return self._scopes.get((api_version, kind), True)

    def forget_kinds(self) -> None:
        """Ask the server anew which kinds it has, as definitions have changed."""
        self._client.discovery.forget()

    async def ensure(self, kinds: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Have caches of these kinds (apiVersion, kind); return those that the server does not have.

        Raises DeliveryError where a cache is not filled within 30 s.
        """
        missing = set()
        for api_version, kind in dict.fromkeys(kinds):
            if (api_version, kind) in self._informers:
                continue
            try:
                await self._watch(api_version, kind)
            except UnknownKind:
                missing.add((api_version, kind))
                builtins = builtin().by_kind(group_of(api_version), api_version.rpartition("/")[2], kind)
                if builtins is not None:
                    self._scopes[api_version, kind] = builtins.namespaced
        return missing

    async def _watch(self, api_version: str, kind: str) -> None:
        if self._controller is None:
            raise RuntimeError("live objects: no controller is attached")
        handle = self.handle(api_version, kind)
        mapping = await handle.mapping()
        self._scopes[api_version, kind] = mapping.namespaced
        is_rollout = (api_version, kind) == ROLLOUT
        mapped = self._owners_by_claims if is_rollout else self._owners
        indexers = {_INDEX: _owners_of} | ({_CLAIMS: _claimed} if is_rollout else {})
        informer = await self._controller.watch(handle, mapped, indexers=indexers)
        try:
            async with asyncio.timeout(_SYNC_SECONDS):
                await informer.wait_synced()
        except TimeoutError:
            raise DeliveryError(
                f"objects of {api_version} {kind} cannot be listed within {_SYNC_SECONDS:g} s; may the controller?"
            ) from None
        self._informers[api_version, kind] = informer
        self._versions.setdefault((mapping.group, kind), api_version)

    def _owners(self, obj: Object) -> Iterable[Request]:
        owner = owner_of(obj)
        return [self._requests(owner)] if owner else ()

    def _owners_by_claims(self, rollout: Object) -> Iterable[Request]:
        """Give whose a rollout is, and whose the services and routes that it names are."""
        yield from self._owners(rollout)
        for kind, namespace, name in claims_of(rollout):
            group = ROUTE_GROUP if kind in ROUTE_KINDS else ""
            found = self.get(Key(group, kind, namespace, name))
            if found is not None:
                yield from self._owners(found)

    def claims(self, key: Key) -> tuple[Claim, ...]:
        """Return what rollouts that are there write into an object."""
        informer = self._informers.get(ROLLOUT)
        if informer is None or not is_shared(key):
            return ()
        place = (key.kind, key.namespace, key.name)
        named = informer.indexer.by_index(_CLAIMS, "/".join(place))
        return tuple(sorted(claim for each in named if (claim := claims_of(each).get(place)) is not None))

    def get(self, key: Key, api_version: str = "") -> Object | None:
        """Return an object as it is by now, None where it is not there or its kind is not watched."""
        version = api_version or self._versions.get((key.group, key.kind), "")
        informer = self._informers.get((version, key.kind))
        if informer is None:
            return None
        cached: Object | None = informer.indexer.get(f"{key.namespace}/{key.name}" if key.namespace else key.name)
        written = self._written.get(key)
        if written is None:
            return cached
        if self._is_seen(written, cached, informer):
            del self._written[key]
            return cached
        return written.obj

    def _is_seen(self, written: _Written, cached: Object | None, informer: Informer[Object]) -> bool:
        if cached is None:
            return written.obj is None or _number(informer.resource_version) >= written.version
        if cached["metadata"].get("uid") != written.uid:
            return _number(cached["metadata"].get("resourceVersion")) > written.version
        if written.obj is None:
            return bool(cached["metadata"].get("deletionTimestamp"))
        return _number(cached["metadata"].get("resourceVersion")) >= written.version

    def of_application(self, instance: str) -> dict[Key, Object]:
        """Return the objects that are marked as being of an application."""
        found: dict[Key, Object] = {}
        for (group, kind), api_version in self._versions.items():
            indexer = self._informers[api_version, kind].indexer
            for text in indexer.index_keys(_INDEX, instance):
                namespace, _, name = text.rpartition("/")
                key = Key(group, kind, namespace, name)
                obj = self.get(key)
                if obj is not None and owner_of(obj) == instance:
                    found[key] = obj
        for key, written in [*self._written.items()]:
            if key not in found and written.obj is not None and owner_of(written.obj) == instance:
                obj = self.get(key)
                if obj is not None:
                    found[key] = obj
        return found

    def wrote(self, key: Key, obj: Object) -> None:
        """Note an object as the server answered a write of it."""
        metadata = obj["metadata"]
        self._note(key, _Written(obj, _number(metadata.get("resourceVersion")), metadata.get("uid") or ""))

    def deleted(self, key: Key, obj: Mapping[str, Any]) -> None:
        """Note that an object's deletion was asked for; it is taken for gone until the cache knows better."""
        metadata = obj["metadata"]
        self._note(key, _Written(None, _number(metadata.get("resourceVersion")), metadata.get("uid") or ""))

    def _note(self, key: Key, written: _Written) -> None:
        self._written[key] = written
        self._written.move_to_end(key)
        if len(self._written) > _MAX_WRITES:
            self._written.popitem(last=False)


def _owners_of(obj: Object) -> list[str]:
    owner = owner_of(obj)
    return [owner] if owner else []


def _claimed(rollout: Object) -> list[str]:
    return ["/".join(each) for each in claims_of(rollout)]


def _number(version: str | None) -> int:
    return int(version) if version and version.isdigit() else 0
