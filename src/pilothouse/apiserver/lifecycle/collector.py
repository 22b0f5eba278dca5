"""The garbage collector: feeds the graph with all changes, and does to objects what it decides."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from pilothouse.apiserver.cache.cacher import key_of
from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.cache.resourcecache import ResourceCache
from pilothouse.apiserver.lifecycle import garbage
from pilothouse.apiserver.lifecycle.calls import MERGE, delete_options, object_path
from pilothouse.apiserver.lifecycle.garbage import Action, Graph, Item, Owner, Place
from pilothouse.apiserver.lifecycle.resources import Resources
from pilothouse.apiserver.lifecycle.workqueue import WorkQueue
from pilothouse.apiserver.ports import Local, Object
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, NotFound
from pilothouse.kinds.times import format_seconds

__all__ = ["GarbageCollector"]

_log = get_logger(__name__)

_IGNORED: Final = frozenset({"events"})
_SAYS_OWNERS: Final = b'"ownerReferences"'
_SAYS_DELETED: Final = b'"deletionTimestamp"'
_REMEMBERED: Final = 1000
"""Uids of objects known to be gone, which nobody has to look for elsewhere; and warnings that were given."""
_SEARCHED: Final = 10_000
"""Objects of a kind among which an owner of another namespace is looked for, to warn of it."""
_Known = TypeVar("_Known")
_Stop: TypeAlias = Callable[[], None]


def _item(cache: ResourceCache, entry: Entry) -> Item:
    metadata = entry.metadata
    owners = tuple(
        Owner(each.uid, each.apiVersion, each.kind, each.name, each.blockOwnerDeletion)
        for each in metadata.ownerReferences
    )
    place = Place(cache.name, metadata.namespace, metadata.name)
    deleting = metadata.deletionTimestamp is not None
    return Item(place, metadata.uid, owners, deleting, tuple(metadata.finalizers))


class _Feed:
    """Tells the collector of the changes of one resource. What concerns no owner costs a search through its bytes."""

    def __init__(self, cache: ResourceCache, collector: GarbageCollector) -> None:
        self._cache = cache
        self._collector = collector

    def feed(self, change: Change) -> None:
        value, old = change.entry.value, change.old
        matters = change.deleted or _SAYS_OWNERS in value or _SAYS_DELETED in value
        if not matters and (old is None or _SAYS_OWNERS not in old.value):
            return
        try:
            if change.deleted:
                self._collector.forget(change.entry.metadata.uid)
            else:
                self._collector.observe(_item(self._cache, change.entry))
        except msgspec.MsgspecError:
            place = f"{self._cache.name} {change.entry.key}"
            _log.warning("the metadata of an object cannot be read; garbage collection leaves it alone", object=place)


class GarbageCollector:
    """Collects garbage from `start` to `close`. `local` is called as the collector's own user."""

    def __init__(self, resources: Resources, local: Local, clock: Clock, ids: Ids) -> None:
        self._resources = resources
        self._local = local
        self._clock = clock
        self._ids = ids
        self.graph = Graph(self)
        self.queue = WorkQueue[str]("garbage", self._work, clock)
        self._feeds: dict[str, tuple[ResourceCache, _Stop]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._warned: OrderedDict[tuple[str, str], None] = OrderedDict()

    def start(self) -> None:
        """Read what is there and follow all resources, those to come included."""
        self._resources.start(self._follow)
        self._follow()

    async def close(self) -> None:
        """Stop; what is on its way to the server may still happen."""
        for _, stop in self._feeds.values():
            stop()
        self._feeds.clear()
        await self.queue.close()

    def _follow(self) -> None:
        wanted = self._resources.all()
        for name in [name for name in self._feeds if name not in wanted]:
            self._feeds.pop(name)[1]()
        for name, served in wanted.items():
            if name in _IGNORED or name in self._feeds:
                continue
            feed = _Feed(served.cache, self)
            self._feeds[name] = served.cache, served.cache.subscribe(feed)
            for entry in served.cache.entries():
                feed.feed(Change(entry, None, deleted=False))
        self.queue.add_all(self.graph.unresolved())

    # What the graph needs

    def resource(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        """Return the resource of a kind, as references name it."""
        return self._resources.of_kind(api_version, kind)

    def find(self, place: Place) -> Item | None:
        """Return the object that is in a place now."""
        entry = self._entry(place)
        cache = self._resources.cache(place.resource)
        return None if entry is None or cache is None else _item(cache, entry)

    def _entry(self, place: Place) -> Entry | None:
        cache = self._resources.cache(place.resource)
        return None if cache is None else cache.get(key_of(place.namespace, place.name))

    def observe(self, item: Item) -> None:
        """Take in an object as it is now."""
        self.queue.add_all(self.graph.observe(item))

    def forget(self, uid: str) -> None:
        """Take in that an object is gone."""
        _remember(self._gone, uid)
        self.queue.add_all(self.graph.forget(uid))

    # Work

    async def _work(self, uid: str) -> None:
        action = self.graph.decide(uid)
        if action is None:
            await self._warn_of_misplaced(uid)
            return
        place = action.item.place
        entry, served = self._entry(place), self._resources.get(place.resource)
        if entry is None or served is None:
            return
        path = object_path(served, place.namespace, place.name)
        try:
            if isinstance(action, garbage.Delete):
                options = delete_options(action.propagation, uid=uid, version=str(entry.rv))
                await self._local.call("DELETE", path, options)
            else:
                patch = {"metadata": {"uid": uid, "resourceVersion": str(entry.rv), **_changed(action, entry)}}
                await self._local.call("PATCH", path, patch, content_type=MERGE)
        except NotFound:
            return
        if isinstance(action, garbage.Delete | garbage.RemoveOwners):
            await self._warn(action.dangling, action.item, entry)

    async def _warn(self, owners: Sequence[Owner], item: Item, entry: Entry) -> None:
        """Tell by an event of owners that are in another namespace than the dependent, once of each."""
        for owner in owners:
            known = item.uid, owner.uid
            if owner.uid in self._gone or known in self._warned or not self._is_elsewhere(owner):
                continue
            _remember(self._warned, known)
            try:
                await self._event(owner, item, entry)
            except ApiStatus as error:
                _log.info("an event could not be written", object=item.place.name, error=error.message)

    async def _warn_of_misplaced(self, uid: str) -> None:
        owners, item = self.graph.misplaced(uid), self.graph.item(uid)
        entry = self._entry(item.place) if item is not None and owners else None
        if item is not None and entry is not None:
            await self._warn(owners, item, entry)

    def _is_elsewhere(self, owner: Owner) -> bool:
        known = self._resources.of_kind(owner.api_version, owner.kind)
        if known is None or not known[1]:
            return False
        cache, uid = self._resources.cache(known[0]), owner.uid.encode()
        if cache is None or len(cache.items) > _SEARCHED:
            return False
        found = any(uid in entry.value and entry.metadata.uid == owner.uid for entry in cache.entries())
        if not found:
            _remember(self._gone, owner.uid)
        return found

    async def _event(self, owner: Owner, item: Item, entry: Entry) -> None:
        place, now = item.place, format_seconds(self._clock.now())
        namespace = place.namespace or "default"
        named = (
            f"[{owner.api_version}/{owner.kind}, namespace: {place.namespace}, name: {owner.name}, uid: {owner.uid}]"
        )
        involved = {"kind": entry.form.kind, "apiVersion": entry.form.api_version, "name": place.name, "uid": item.uid}
        event: Object = {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"name": f"{place.name}.{self._ids.int63():016x}", "namespace": namespace},
            "involvedObject": {**involved, **({"namespace": place.namespace} if place.namespace else {})},
            "reason": "OwnerRefInvalidNamespace",
            "message": f'ownerRef {named} does not exist in namespace "{place.namespace}"',
            "source": {"component": "garbage-collector-controller"},
            "reportingComponent": "garbage-collector-controller",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": "Warning",
        }
        await self._local.call("POST", f"/api/v1/namespaces/{namespace}/events", event)


def _remember(known: OrderedDict[_Known, None], what: _Known) -> None:
    known[what] = None
    known.move_to_end(what)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)


def _changed(action: Action, entry: Entry) -> dict[str, Any]:
    """Return what becomes of the metadata, as a merge patch."""
    metadata = entry.decoded()["metadata"]
    if isinstance(action, garbage.RemoveFinalizer):
        left = [name for name in metadata.get("finalizers") or () if name != action.finalizer]
        return {"finalizers": left or None}
    owners = metadata.get("ownerReferences") or []
    if isinstance(action, garbage.RemoveOwners):
        return {"ownerReferences": [each for each in owners if each.get("uid") not in action.uids] or None}
    return {"ownerReferences": [{**each, "blockOwnerDeletion": False} for each in owners]}
