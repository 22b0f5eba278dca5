"""The queue of changes between a reflector and a cache: every event in order, and what a new list means for the old."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from pilothouse.client.objects import DeletedFinalStateUnknown, key_of

__all__ = [
    "Delta",
    "DeltaQueue",
    "DeltaType",
    "KeyedDeltaQueue",
    "KnownObjects",
    "Process",
    "Transform",
    "TransformFailed",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

DeltaType = Literal["Added", "Updated", "Deleted", "Replaced", "Sync"]
Transform = Callable[[T], T]
"""Makes of each object what is to be cached. Must not keep what it is given, and may be called twice on one object."""

TransformFailed = Callable[[str, Exception], object]
"""Is told the key of an object that a transform failed on; such an object is cached as the server sent it."""

BATCH: Final = 1_000
"""Deltas that are processed at once."""


class Delta(NamedTuple):
    """One change. `object` is a tombstone for a deletion that nobody saw."""

    type: DeltaType
    key: str
    object: Any


Process = Callable[[Sequence[Delta], bool], object]
"""Takes deltas in order, and whether they belong to the initial list."""


class KnownObjects(Protocol[T_co]):
    """What was processed already: the cache."""

    def get(self, key: str, /) -> T_co | None:
        """Return the object of this key, or None."""

    def keys(self) -> Iterable[str]:
        """Give all keys."""


class _Population(Generic[T]):
    """What both kinds of queues share: the transform, and counting down the initial list."""

    def __init__(
        self,
        known: KnownObjects[T],
        *,
        transform: Transform[T] | None = None,
        transform_failed: TransformFailed | None = None,
    ) -> None:
        self._known = known
        self._transform = transform
        self._transform_failed = transform_failed
        self._populated = False
        self._initial_left = 0

    @property
    def has_synced(self) -> bool:
        """Whether all of the first list was processed, not only queued."""
        return self._populated and not self._initial_left

    def transformed(self, obj: T) -> T:
        """Return what is cached of an object."""
        if self._transform is None:
            return obj
        try:
            return self._transform(obj)
        except Exception as error:  # noqa: BLE001  a user's function; losing the event would leave the cache stale
            if self._transform_failed is not None:
                self._transform_failed(key_of(obj), error)
            return obj

    def _processed(self, count: int) -> None:
        self._initial_left = max(self._initial_left - count, 0)


class DeltaQueue(_Population[T]):
    """Deltas in the order in which they came, as client-go's RealFIFO keeps them.

    It holds no more than one list and what came while that is processed: whoever fills it processes it before
    reading on. For the event loop's thread only.
    """

    def __init__(
        self,
        known: KnownObjects[T],
        *,
        transform: Transform[T] | None = None,
        transform_failed: TransformFailed | None = None,
    ) -> None:
        super().__init__(known, transform=transform, transform_failed=transform_failed)
        self._deltas: deque[Delta] = deque()

    def __len__(self) -> int:
        return len(self._deltas)

    def add(self, obj: T) -> None:
        """Queue an ADDED event. Raises ObjectKeyError."""
        self._push("Added", obj)

    def update(self, obj: T) -> None:
        """Queue a MODIFIED event. Raises ObjectKeyError."""
        self._push("Updated", obj)

    def delete(self, obj: T) -> None:
        """Queue a DELETED event. Raises ObjectKeyError."""
        self._push("Deleted", obj)

    def replace(self, items: Iterable[T], *, transformed: bool = False) -> None:
        """Queue a whole new list: first a tombstone for each object that vanished, then the items.

        transformed: whether `transformed` was called on the items. Raises ObjectKeyError, with nothing queued.
        """
        change = None if transformed else self._transform
        found = [Delta("Replaced", key_of(item), self.transformed(item) if change else item) for item in items]
        present = {delta.key for delta in found}
        last = {delta.key: delta for delta in self._deltas}
        for key, delta in last.items():
            if key not in present and delta.type != "Deleted":
                self._deltas.append(Delta("Deleted", key, DeletedFinalStateUnknown(key, delta.object)))
        for key in list(self._known.keys()):
            if key not in present and key not in last:
                self._deltas.append(Delta("Deleted", key, DeletedFinalStateUnknown(key, self._known.get(key))))
        self._deltas.extend(found)
        if not self._populated:
            self._populated = True
            self._initial_left = len(self._deltas)

    def resync(self) -> None:
        """Queue a Sync of every cached object that has no delta of its own waiting. Asks no server."""
        queued = {delta.key for delta in self._deltas}
        for key in list(self._known.keys()):
            if key not in queued and (known := self._known.get(key)) is not None:
                self._deltas.append(Delta("Sync", key, known))

    def process(self, process: Process, limit: int = BATCH) -> int:
        """Hand over the oldest deltas, at most `limit` and never past the end of the initial list; return how many.

        They count as processed even if `process` raises; the error is passed on.
        """
        deltas = self._deltas
        initial = not self.has_synced
        if self._initial_left:
            limit = min(limit, self._initial_left)
        if len(deltas) <= limit:
            batch = list(deltas)
            deltas.clear()
        else:
            batch = [deltas.popleft() for _ in range(limit)]
        if not batch:
            return 0
        try:
            process(batch, initial)
        finally:
            self._processed(len(batch))
        return len(batch)

    def _push(self, kind: DeltaType, obj: T) -> None:
        key = key_of(obj)
        self._populated = True
        self._deltas.append(Delta(kind, key, self.transformed(obj) if self._transform is not None else obj))


class KeyedDeltaQueue(_Population[T]):
    """Deltas gathered by key, as client-go's older DeltaFIFO keeps them: keys come out in the order of their first.

    Of the deltas of one key only deletions in a row are merged; the real object is kept rather than a tombstone.
    """

    def __init__(
        self,
        known: KnownObjects[T],
        *,
        transform: Transform[T] | None = None,
        transform_failed: TransformFailed | None = None,
    ) -> None:
        super().__init__(known, transform=transform, transform_failed=transform_failed)
        self._deltas: OrderedDict[str, list[Delta]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._deltas)

    def add(self, obj: T) -> None:
        """Queue an ADDED event. Raises ObjectKeyError."""
        self._event("Added", obj)

    def update(self, obj: T) -> None:
        """Queue a MODIFIED event. Raises ObjectKeyError."""
        self._event("Updated", obj)

    def delete(self, obj: T) -> None:
        """Queue a DELETED event; one of an object that is neither queued nor cached is none. Raises ObjectKeyError."""
        key = key_of(obj)
        if self._known.get(key) is None and key not in self._deltas:
            self._populated = True
            return
        self._event("Deleted", obj)

    def replace(self, items: Iterable[T], *, transformed: bool = False) -> None:
        """Queue a whole new list; objects that vanished get a tombstone. Raises ObjectKeyError, with nothing queued."""
        change = None if transformed else self._transform
        found = [Delta("Replaced", key_of(item), self.transformed(item) if change else item) for item in items]
        present = {delta.key for delta in found}
        queued = [(key, deltas[-1].object) for key, deltas in self._deltas.items() if key not in present]
        missing = [key for key in list(self._known.keys()) if key not in present and key not in self._deltas]
        cached = [(key, self._known.get(key)) for key in missing]
        for key, obj in queued + cached:
            last = obj.object if isinstance(obj, DeletedFinalStateUnknown) else obj
            self._append(Delta("Deleted", key, DeletedFinalStateUnknown(key, last)))
        for delta in found:
            self._append(delta)
        if not self._populated:
            self._populated = True
            self._initial_left = len(present) + len(queued) + len(cached)

    def resync(self) -> None:
        """Queue a Sync of every cached object that has no delta of its own waiting. Asks no server."""
        for key in list(self._known.keys()):
            if key not in self._deltas and (known := self._known.get(key)) is not None:
                self._append(Delta("Sync", key, known))

    def process(self, process: Process, limit: int = BATCH) -> int:
        """Hand over all deltas of the oldest keys, key by key, at most `limit` keys; return how many keys."""
        done = 0
        while self._deltas and done < limit:
            initial = not self.has_synced
            _, deltas = self._deltas.popitem(last=False)
            done += 1
            try:
                process(deltas, initial)
            finally:
                self._processed(1)
        return done

    def _event(self, kind: DeltaType, obj: T) -> None:
        key = key_of(obj)
        self._populated = True
        self._append(Delta(kind, key, self.transformed(obj)))

    def _append(self, delta: Delta) -> None:
        deltas = self._deltas.setdefault(delta.key, [])
        if deltas and delta.type == "Deleted" and deltas[-1].type == "Deleted":
            if isinstance(deltas[-1].object, DeletedFinalStateUnknown):
                deltas[-1] = delta
            return
        deltas.append(delta)
