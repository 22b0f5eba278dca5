"""Deleted namespaces: their content goes first, pods before all else, then the namespace itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.lifecycle.calls import delete_options, object_path
from pilothouse.apiserver.lifecycle.emptying import FINALIZER_SECONDS, Emptying, grace_left
from pilothouse.apiserver.lifecycle.foreign import ForeignContent
from pilothouse.apiserver.lifecycle.resources import Resources
from pilothouse.apiserver.lifecycle.workqueue import WorkQueue
from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.apiserver.rest.served import Served
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import ApiStatus, Conflict, MethodNotAllowed, NotFound, ServiceUnavailable
from pilothouse.kinds.times import format_seconds, parse

__all__ = ["NamespaceDeletion"]

_NAMESPACES: Final = "namespaces"
_PODS: Final = "pods"
_KUBERNETES: Final = "kubernetes"
_PAGE: Final = 500
_AT_ONCE: Final = 4
"""Resources of one namespace emptied at a time."""
_OTHERS_LEARN: Final = 5.0
"""Seconds after which other servers on the same store know that the namespace takes nothing new."""
_AGAIN: Final = 1.0
_DELETED: Final = b'"deletionTimestamp"'


class _Remains:
    """Asks for another look when the last object of a resource has gone from a namespace."""

    def __init__(self, is_left: Callable[[], bool], look: Callable[[], None]) -> None:
        self._is_left = is_left
        self._look = look

    def feed(self, change: Change) -> None:
        if change.deleted and not self._is_left():
            self._look()


class NamespaceDeletion:
    """Empties and finalizes namespaces that are being deleted, from `start` to `close`."""

    def __init__(
        self,
        resources: Resources,
        view: View,
        cacher: Cacher,
        local: Local,
        clock: Clock,
        foreign: ForeignContent,
    ) -> None:
        self._resources = resources
        self._view = view
        self._cacher = cacher
        self._local = local
        self._clock = clock
        self._foreign = foreign
        self.queue = WorkQueue[str]("namespaces", self._work, clock, workers=10)
        self._stops: list[Callable[[], None]] = []
        self._watched: dict[str, list[Callable[[], None]]] = {}
        self._latecomers: set[str] = set()
        """Namespaces just gone, into which a write that was on its way may still bring something."""

    def start(self) -> None:
        """Look at all namespaces, and follow what changes."""
        cache = self._cacher.named(_NAMESPACES)
        if cache is None:
            raise LookupError(_NAMESPACES)
        self._stops.append(cache.subscribe(self))
        for entry in cache.entries():
            self._note(entry)

    def feed(self, change: Change) -> None:
        """Take a change of a namespace."""
        if change.deleted:
            self._unwatch(change.entry.key)
            self._latecomers.add(change.entry.key)
            self.queue.add(change.entry.key)
        else:
            self._note(change.entry)

    def _note(self, entry: Entry) -> None:
        if _DELETED in entry.value and entry.metadata.deletionTimestamp:
            self.queue.add(entry.key)

    async def close(self) -> None:
        """Stop; what is on its way to the server may still happen."""
        for stop in self._stops:
            stop()
        for name in list(self._watched):
            self._unwatch(name)
        await self.queue.close()

    # One look at one namespace

    async def _work(self, name: str) -> float | None:
        namespace = self._view.get(_NAMESPACES, "", name)
        if namespace is None:
            return await self._sweep(name)
        deleted = namespace["metadata"].get("deletionTimestamp")
        if not deleted or _KUBERNETES not in (namespace["spec"].get("finalizers") or ()):
            self._unwatch(name)
            self._latecomers.discard(name)
            return None
        passed = (self._clock.now() - parse(deleted)).total_seconds()
        if self._cacher.shared:
            if passed < _OTHERS_LEARN:
                return _OTHERS_LEARN - passed
            await self._cacher.current()
        found = await self._empty(name, passed)
        try:
            namespace = await self._tell(namespace, found)
            if found.done:
                await self._finalize(namespace)
        except NotFound:
            return None
        except Conflict:
            return 0.0
        if found.done:
            self._unwatch(name)
            return None
        self._watch(name, found)
        if found.failures or found.undiscovered:
            why = ", ".join((*found.failures, *(f"{each}: does not answer" for each in found.undiscovered)))
            raise ServiceUnavailable(f'namespace "{name}" cannot be emptied yet: {why}')
        return found.seconds / 2 + _AGAIN

    async def _sweep(self, name: str) -> float | None:
        """Delete what came into a namespace after the last look at it, now and once more a while later."""
        for served in self._resources.all().values():
            if self._left(served, name):
                await self._delete_each(served, name)
        if name not in self._latecomers:
            return None
        self._latecomers.discard(name)
        return _OTHERS_LEARN

    async def _empty(self, name: str, passed: float) -> Emptying:
        found = Emptying(undiscovered=self._foreign.undiscovered())
        pods = self._resources.get(_PODS)
        if pods is not None:
            await self._empty_of(pods, name, passed, found)
            if found.remaining:
                # They may need the rest of the namespace to end well.
                return found
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(served: Served) -> None:
            async with gate:
                await self._empty_of(served, name, passed, found)

        await asyncio.gather(*(one(each) for each in self._resources.all().values() if self._left(each, name)))
        await self._foreign.empty(name, found)
        return found

    def _left(self, served: Served, namespace: str) -> bool:
        if not served.resource.namespaced:
            return False
        first = next(served.cache.items.irange(f"{namespace}/", f"{namespace}0", (True, False)), None)
        return first is not None

    async def _empty_of(self, served: Served, name: str, passed: float, found: Emptying) -> None:
        """Delete all objects of one resource, and note what is left of them."""
        if not self._left(served, name):
            return
        resource = served.resource
        is_pods = resource.full_name == _PODS
        grace = grace_left(self._view.list(_PODS, name), passed) if is_pods else 0.0
        try:
            await self._delete_all(served, name)
        except ApiStatus as error:
            found.failures.append(error.message)
            return
        left = served.cache.entries(name)
        if not left:
            return
        found.remaining[resource.resource, resource.group] += len(left)
        held = [each for entry in left for each in entry.metadata.finalizers]
        found.finalizers.update(held)
        found.seconds = max(found.seconds, grace or (FINALIZER_SECONDS if held else 0.0))
        if not grace and not held:
            gvr = f"{resource.group}/{resource.version}, Resource={resource.resource}"
            found.failures.append(f"unexpected items still remain in namespace: {name} for gvr: {gvr}")

    async def _delete_all(self, served: Served, name: str) -> None:
        path, token = object_path(served, name), ""
        options = delete_options("Background")
        if "deletecollection" not in served.resource.verbs:
            await self._delete_each(served, name)
            return
        while True:
            more = f"&continue={quote(token)}" if token else ""
            try:
                answer = await self._local.call("DELETE", f"{path}?limit={_PAGE}{more}", options)
            except (MethodNotAllowed, NotFound):
                return
            token = answer["metadata"].get("continue") or ""
            if not token:
                return

    async def _delete_each(self, served: Served, name: str) -> None:
        for entry in served.cache.entries(name):
            metadata = entry.metadata
            try:
                path = object_path(served, name, metadata.name)
                await self._local.call("DELETE", path, delete_options("Background", uid=metadata.uid))
            except NotFound:
                continue

    # What becomes of the namespace

    async def _tell(self, namespace: Object, found: Emptying) -> Object:
        status = namespace.get("status") or {}
        old = status.get("conditions") or []
        made = found.conditions(old, format_seconds(self._clock.now()))
        if made == old and status.get("phase") == "Terminating":
            return namespace
        changed = {**namespace, "status": {**status, "phase": "Terminating", "conditions": made}}
        return await self._local.call("PUT", f"{_path(namespace)}/status", changed)

    async def _finalize(self, namespace: Object) -> None:
        spec = namespace["spec"]
        left = [each for each in spec.get("finalizers") or () if each != _KUBERNETES]
        changed = {**namespace, "spec": {**spec, "finalizers": left}}
        await self._local.call("PUT", f"{_path(namespace)}/finalize", changed)

    def _watch(self, name: str, found: Emptying) -> None:
        """Look again as soon as something of what remains is gone."""
        self._unwatch(name)
        self._watched[name] = [
            self._follow_remains(served, name)
            for served in self._resources.all().values()
            if (served.resource.resource, served.resource.group) in found.remaining
        ]

    def _follow_remains(self, served: Served, name: str) -> Callable[[], None]:
        remains = _Remains(lambda: self._left(served, name), lambda: self.queue.add(name))
        if not self._left(served, name):
            self.queue.add(name)
        return served.cache.subscribe(remains, name)

    def _unwatch(self, name: str) -> None:
        for stop in self._watched.pop(name, ()):
            stop()


def _path(namespace: Object) -> str:
    return f"/api/v1/namespaces/{quote(namespace['metadata']['name'])}"
