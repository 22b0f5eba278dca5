"""The watch cache as the parts of the server see it: decoded objects, and a call for each change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from pilothouse.apiserver.cache.cacher import Cacher, key_of
from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.cache.resourcecache import ResourceCache
from pilothouse.apiserver.ports import Object

__all__ = ["CacheView"]

_DECODED = 4096
"""Objects kept decoded for those who ask again and again: roles, namespaces, service accounts, ..."""

_Changed = Callable[[Object | None, Object | None], None]


class _Listener:
    """Hands changes on as decoded objects."""

    def __init__(self, changed: _Changed) -> None:
        self._changed = changed

    def feed(self, change: Change) -> None:
        old = change.old.object if change.old is not None else None
        self._changed(old, None if change.deleted else change.entry.object)


class _Notified:
    """Hands on of what something changed."""

    def __init__(self, changed: Callable[[str, str], None]) -> None:
        self._changed = changed

    def feed(self, change: Change) -> None:
        namespace, _, name = change.entry.key.rpartition("/")
        self._changed(namespace, name)


class CacheView:
    """Implements `ports.View` on a cacher."""

    def __init__(self, cacher: Cacher) -> None:
        self._cacher = cacher
        self._decoded: OrderedDict[Entry, None] = OrderedDict()

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        cache = self._cacher.named(resource)
        entry = cache.get(key_of(namespace, name)) if cache is not None else None
        return None if entry is None else self._object(entry)

    def list(self, resource: str, namespace: str = "") -> Sequence[Object]:
        cache = self._cacher.named(resource)
        return [] if cache is None else [self._object(entry) for entry in cache.entries(namespace)]

    def version(self, resource: str) -> int:
        cache = self._cacher.named(resource)
        return 0 if cache is None else cache.version

    def subscribe(self, resource: str, changed: _Changed) -> Callable[[], None]:
        return self._known(resource).subscribe(_Listener(changed))

    def notify(self, resource: str, changed: Callable[[str, str], None]) -> Callable[[], None]:
        return self._known(resource).subscribe(_Notified(changed))

    def _known(self, resource: str) -> ResourceCache:
        cache = self._cacher.named(resource)
        if cache is None:
            raise LookupError(f"resource {resource!r} is not known; built-in ones go by their full name")
        return cache

    def _object(self, entry: Entry) -> Object:
        if entry.is_decoded:
            return entry.object
        self._decoded[entry] = None
        if len(self._decoded) > _DECODED:
            self._decoded.popitem(last=False)[0].forget()
        return entry.object
