"""From what happens to objects to requests in a queue: the object itself, its owner, or whatever a mapping says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from pilothouse.client.objects import DeletedFinalStateUnknown, resource_version_of, split_key
from pilothouse.client.packed import of_head
from pilothouse.client.workqueue import LOW_PRIORITY, QueueFullError, WorkQueue
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.structs import Resource

from .predicates import Predicate
from .reconciler import Request

__all__ = ["Enqueue", "Mapping", "itself", "owner_of"]

R = TypeVar("R", bound=Resource)

Mapping: TypeAlias = Callable[[R], Iterable[Request]]
"""Which requests follow from an object; none, and several, are fine. It must be fast, and read caches at most.

Marked by `pilothouse.client.packed.of_head` it looks at `metadata` alone, and no object has to be read for it.
"""

_FULL_PAUSE_SECONDS: Final = 0.5


@of_head
def itself(obj: Resource) -> Iterable[Request]:
    """Map an object to its own request."""
    return (Request.of(obj),)


def owner_of(kind: type[Resource], *, controller: bool = True) -> Mapping[Resource]:
    """Map an object to its owners of a kind; to the one that controls it only, unless `controller` is False."""
    group, _, name = kind.gvk
    namespaced = kind.namespaced

    @of_head
    def mapped(obj: Resource) -> Iterable[Request]:
        metadata = obj.metadata
        return [
            Request(metadata.namespace if namespaced else "", owner.name)
            for owner in metadata.owner_references
            if owner.kind == name
            and (owner.controller or not controller)
            and (owner.api_version.rpartition("/")[0] == group)
        ]

    return mapped


class Enqueue(Generic[R]):
    """Handles an informer's events: those that pass the predicate become requests in the queue.

    Objects of the first list and of resyncs get a low priority. An update is mapped as it was and as it is, so that who
    lost an object is told too. While the queue is full it waits, which holds up no other handler.
    """

    def __init__(
        self,
        queue: WorkQueue[Request],
        mapping: Mapping[R],
        predicate: Predicate[R] | None,
        clock: Clock,
        *,
        by_key: bool = False,
    ) -> None:
        self._queue = queue
        self._mapping = mapping
        self._predicate = predicate
        self._clock = clock
        self._by_key = by_key

    def on_add(self, obj: R, is_in_initial_list: bool) -> Awaitable[object] | object:
        if self._predicate is not None and not self._predicate.create(obj):
            return None
        return self._add(self._mapping(obj), LOW_PRIORITY if is_in_initial_list else 0)

    def on_update(self, old: R, new: R) -> Awaitable[object] | object:
        if self._predicate is not None and not self._predicate.update(old, new):
            return None
        if old is new or resource_version_of(old) == resource_version_of(new):
            return self._add(self._mapping(new), LOW_PRIORITY)
        return self._add([*dict.fromkeys([*self._mapping(old), *self._mapping(new)])], 0)

    def on_delete(self, obj: R | DeletedFinalStateUnknown[R]) -> Awaitable[object] | object:
        if isinstance(obj, DeletedFinalStateUnknown):
            if obj.object is None:
                # Without its last state only its own request can be told.
                return self._add([Request(*split_key(obj.key))], 0) if self._by_key else None
            obj = obj.object
        if self._predicate is not None and not self._predicate.delete(obj):
            return None
        return self._add(self._mapping(obj), 0)

    def _add(self, requests: Iterable[Request], priority: int) -> Awaitable[object] | None:
        left = [*requests]
        try:
            while left:
                self._queue.add(left[-1], priority=priority)
                left.pop()
        except QueueFullError:
            return self._add_later(left, priority)
        return None

    async def _add_later(self, left: list[Request], priority: int) -> None:
        while left:
            await self._clock.sleep(_FULL_PAUSE_SECONDS)
            try:
                while left:
                    self._queue.add(left[-1], priority=priority)
                    left.pop()
            except QueueFullError:
                continue
