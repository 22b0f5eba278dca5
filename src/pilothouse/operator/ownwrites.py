"""Read your own writes: what was just written is seen in the caches, though their watches may not have brought it yet.

A reconciler that makes a pod and is called again before the pod is in the cache would make a second one. Kubernetes'
controllers count what they expect to see; here the server's answer to a write stands in for the cache until the watch
has got as far. Versions of one resource are compared as numbers, which Kubernetes allows (KEP-5504).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar

from pilothouse.client.objects import key_of
from pilothouse.kinds import times
from pilothouse.kinds.structs import Resource, replace

__all__ = ["OwnWrites"]

R = TypeVar("R", bound=Resource)

_MAX_WRITES: Final = 20_000


class _Written(NamedTuple, Generic[R]):
    """An object as a write left it; `deleted` where the write was its deletion, which its version knows nothing of."""

    obj: R
    version: int
    deleted: bool


class OwnWrites(Generic[R]):
    """The writes to objects of one kind that its cache may not have yet.

    version: the resource version that the cache has got to. max_writes: kept at most; beyond, the oldest is taken for
    seen.
    """

    def __init__(self, version: Callable[[], str], *, max_writes: int = _MAX_WRITES) -> None:
        self._version = version
        self._max = max_writes
        self._written: OrderedDict[str, _Written[R]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._written)

    def wrote(self, obj: R) -> None:
        """Note an object as the server answered a write of it."""
        self._note(key_of(obj), _Written(obj, _number(obj.metadata.resource_version), False))

    def deleted(self, obj: R, now: datetime) -> None:
        """Note that an object's deletion was asked for: until the cache knows, it is shown as being deleted."""
        if obj.metadata.deletion_timestamp is None:
            obj = replace(obj, metadata__deletion_timestamp=times.format_seconds(now))
        self._note(key_of(obj), _Written(obj, _number(obj.metadata.resource_version), True))

    def get(self, key: str, cached: R | None) -> R | None:
        """Return an object by its key as it is by now; cached: what the cache has of it."""
        written = self._written.get(key)
        if written is None:
            return cached
        if self._is_seen(written, cached):
            del self._written[key]
            return cached
        return written.obj

    def merged(self, cached: Iterable[R], belongs: Callable[[R], bool], has: Callable[[str], R | None]) -> list[R]:
        """Return the objects of a cache's list as they are by now, with those that were made since.

        belongs: whether an object is one of this list. has: gives what the cache has under a key.
        """
        if not self._written:
            return [*cached]
        found = {key_of(obj): obj for obj in cached}
        for key in [*self._written]:
            current = self.get(key, has(key))
            if current is not None and belongs(current):
                found[key] = current
            else:
                found.pop(key, None)
        return [*found.values()]

    def _note(self, key: str, written: _Written[R]) -> None:
        self._written[key] = written
        self._written.move_to_end(key)
        if len(self._written) > self._max:
            self._written.popitem(last=False)

    def _is_seen(self, written: _Written[R], cached: R | None) -> bool:
        if cached is None:
            # It is not there: not yet, or, once the cache has got further than the write, no more.
            return _number(self._version()) >= written.version
        if cached.metadata.uid != written.obj.metadata.uid:
            return _number(cached.metadata.resource_version) > written.version
        if written.deleted:
            return cached.metadata.deletion_timestamp is not None
        return _number(cached.metadata.resource_version) >= written.version


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0
