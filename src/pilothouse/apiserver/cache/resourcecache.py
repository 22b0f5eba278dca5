"""All objects of one resource in the order of their keys, its latest changes, and those who watch it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from sortedcontainers import SortedDict

from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry

__all__ = ["ResourceCache", "Subscriber", "TooOldError"]

_WINDOW = 10_000
"""Changes of one resource kept for watchers that start in the past."""
_WINDOW_BYTES = 64 * 1024 * 1024


class TooOldError(Exception):
    """The resource version to start from is older than what is kept; `oldest` could be had."""

    def __init__(self, oldest: int) -> None:
        super().__init__(oldest)
        self.oldest = oldest


class Subscriber(Protocol):
    """Who is told of changes. Both are called on the loop, in order, and must not raise or take long."""

    def feed(self, change: Change) -> None:
        """Take the next change."""


class ResourceCache:
    """The objects of one resource. `prefix` is the beginning of their keys in the store, with its last slash."""

    def __init__(self, name: str, prefix: bytes, *, custom: bool, since: int) -> None:
        self.name = name
        self.prefix = prefix
        self.custom = custom
        self.items: SortedDict[str, Entry] = SortedDict()
        self.version = 0
        """Grows with every change."""
        self._window: deque[Change] = deque()
        self._window_bytes = 0
        self._since = since
        self._everywhere: dict[Subscriber, None] = {}
        self._in_namespace: dict[str, dict[Subscriber, None]] = {}

    @property
    def oldest(self) -> int:
        """The resource version after which all changes are known."""
        return self._since

    @property
    def watchers(self) -> int:
        """The number of those who are told of changes."""
        return len(self._everywhere) + sum(map(len, self._in_namespace.values()))

    def get(self, key: str) -> Entry | None:
        """Return the object of a key (`namespace/name`, or the name alone)."""
        found: Entry | None = self.items.get(key)
        return found

    def entries(self, namespace: str = "") -> list[Entry]:
        """Return all objects, or those of a namespace, in the order of keys: a snapshot, since entries never change."""
        if not self.items:
            return []
        if not namespace:
            return list(self.items.values())
        return [self.items[key] for key in self.items.irange(f"{namespace}/", f"{namespace}0", (True, False))]

    def apply(self, change: Change, key: str) -> None:
        """Take a change in and tell of it."""
        if change.deleted:
            self.items.pop(key, None)
        else:
            self.items[key] = change.entry
        self.version += 1
        self._remember(change)
        if self._everywhere:
            for subscriber in list(self._everywhere):
                subscriber.feed(change)
        if self._in_namespace:
            namespace, slash, _ = key.partition("/")
            if slash and (found := self._in_namespace.get(namespace)):
                for subscriber in list(found):
                    subscriber.feed(change)

    def _remember(self, change: Change) -> None:
        self._window.append(change)
        self._window_bytes += len(change.entry.value)
        while len(self._window) > _WINDOW or self._window_bytes > _WINDOW_BYTES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        gone = self._window.popleft()
        self._window_bytes -= len(gone.entry.value)
        self._since = gone.rv

    def compact(self, revision: int) -> None:
        """Forget changes up to a revision that the store has compacted."""
        while self._window and self._window[0].rv <= revision:
            self._forget_oldest()
        self._since = max(self._since, revision)

    def changes_after(self, rv: int) -> list[Change]:
        """Return the changes after a resource version. Raises TooOldError where some of them are forgotten."""
        if rv < self._since:
            raise TooOldError(self._since)
        window = self._window
        if not window or window[-1].rv <= rv:
            return []
        found = []
        for change in reversed(window):
            if change.rv <= rv:
                break
            found.append(change)
        found.reverse()
        return found

    def subscribe(self, subscriber: Subscriber, namespace: str = "") -> Callable[[], None]:
        """Tell of changes from now on, of all or of one namespace; return how to stop it."""
        group = self._in_namespace.setdefault(namespace, {}) if namespace else self._everywhere
        group[subscriber] = None

        def stop() -> None:
            group.pop(subscriber, None)
            if namespace and not group and self._in_namespace.get(namespace) is group:
                del self._in_namespace[namespace]

        return stop

    def page(self, after: str, limit: int) -> Iterator[Entry]:
        """Return up to `limit` entries with keys greater than `after`."""
        return (self.items[key] for key in islice(self.items.irange(after, None, (False, True)), limit))
