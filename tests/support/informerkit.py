"""A server for informers' tests, in memory: versions, watches, bookmarks, compaction, cuts, and what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from pilothouse.client.listwatch import ListOptions, ListResult, WatchEvent, WatchOptions
from pilothouse.client.objects import key_of
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds.status import Expired, Invalid, too_large_resource_version

__all__ = ["CallerListerWatcher", "FakeServer", "obj"]

Object = dict[str, Any]
Events = list[WatchEvent[Object]]


def obj(name: str, version: int | str = "", *, namespace: str = "ns", uid: str = "", **more: Any) -> Object:
    """Make an object."""
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "uid": uid or f"uid-{name}"}
    return {"metadata": metadata | more.pop("metadata", {}), **more}


@dataclass(eq=False)
class _Watch:
    queue: asyncio.Queue[WatchEvent[Object] | Exception | None] = field(default_factory=asyncio.Queue)
    half_open: bool = False


class FakeServer:
    """One resource. It is a lister-watcher; `put`, `remove`, `compact`, `cut` and the like are its other side."""

    description = "things"

    def __init__(self, *, clock: Clock | None = None, streams: bool = True, bookmark_seconds: float = 60.0) -> None:
        self.clock = clock or SystemClock()
        self.streams = streams
        self.bookmark_seconds = bookmark_seconds
        self.version = 1
        self.oldest = 1
        self.items: dict[str, Object] = {}
        self.history: list[WatchEvent[Object]] = []
        self.watches: list[_Watch] = []
        self.lists: list[ListOptions] = []
        self.asked: list[WatchOptions] = []
        self.refuse: list[Exception] = []
        """Raised by the next calls, one each."""
        self.stale_at: Callable[[], tuple[int, list[Object]]] | None = None
        """What a list with version "0" is answered with, where it is not the newest state."""
        self.open_watches = 0

    # What tests do to it

    def put(self, name: str, **more: Any) -> Object:
        """Create or change an object."""
        self.version += 1
        made = obj(name, self.version, **more)
        key = key_of(made)
        kind = "MODIFIED" if key in self.items else "ADDED"
        self.items[key] = made
        self._tell(WatchEvent(kind, made, str(self.version)))  # type: ignore[arg-type]
        return made

    def remove(self, name: str, namespace: str = "ns") -> None:
        """Delete an object."""
        self.version += 1
        old = self.items.pop(f"{namespace}/{name}")
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._tell(WatchEvent("DELETED", gone, str(self.version)))

    def compact(self) -> None:
        """Forget the history."""
        self.oldest = self.version
        self.history.clear()

    def cut(self, error: Exception | None = None) -> None:
        """End all watches: properly, or by an error."""
        for watch in self.watches:
            watch.queue.put_nowait(error)

    def half_open(self) -> None:
        """Send nothing more on the present watches, and do not end them."""
        for watch in self.watches:
            watch.half_open = True

    def bookmark(self) -> None:
        """Send a bookmark to all watches."""
        self._send(WatchEvent("BOOKMARK", None, str(self.version)))

    def raw(self, event: WatchEvent[Object]) -> None:
        """Send any event."""
        self._send(event)

    # What a reflector asks

    async def list(self, options: ListOptions) -> ListResult[Object]:
        self.lists.append(options)
        await asyncio.sleep(0)
        self._maybe_refuse()
        wanted = int(options.resource_version or 0)
        if wanted > self.version:
            raise too_large_resource_version(wanted, self.version)
        if options.resource_version == "0" and self.stale_at is not None:
            version, items = self.stale_at()
            return ListResult(items, str(version))
        items = [*self.items.values()]
        start = int(options.continue_ or 0)
        if options.limit and options.resource_version != "0" and len(items) > start + options.limit:
            following = start + options.limit
            return ListResult(items[start:following], str(self.version), str(following), len(items) - following)
        return ListResult(items[start:], str(self.version))

    async def watch(self, options: WatchOptions) -> AsyncGenerator[WatchEvent[Object], None]:
        self.asked.append(options)
        self._maybe_refuse()
        watch = _Watch()
        for event in self._past(options):
            watch.queue.put_nowait(event)
        self.watches.append(watch)
        self.open_watches += 1
        ends = self.clock.call_later(options.timeout_seconds or 3600, lambda: watch.queue.put_nowait(None))
        try:
            while True:
                item_or_end = await watch.queue.get()
                if isinstance(item_or_end, Exception):
                    raise item_or_end
                if item_or_end is None:
                    return
                yield item_or_end
        finally:
            ends.cancel()
            self.watches.remove(watch)
            self.open_watches -= 1

    def _past(self, options: WatchOptions) -> Events:
        if options.send_initial_events and not self.streams:
            raise Invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch")
        since = int(options.resource_version or 0)
        if since > self.version:
            raise too_large_resource_version(since, self.version)
        if since and since < self.oldest and not options.send_initial_events:
            raise Expired(f"too old resource version: {since} ({self.oldest})")
        if since and not options.send_initial_events:
            return [event for event in self.history if int(event.resource_version) > since]
        present: Events = [
            WatchEvent("ADDED", item, item["metadata"]["resourceVersion"]) for item in self.items.values()
        ]
        if options.send_initial_events:
            present.append(WatchEvent("BOOKMARK", None, str(self.version), True))
        return present

    def _maybe_refuse(self) -> None:
        if self.refuse:
            raise self.refuse.pop(0)

    def _tell(self, event: WatchEvent[Object]) -> None:
        self.history.append(event)
        self._send(event)

    def _send(self, event: WatchEvent[Object]) -> None:
        for watch in self.watches:
            if not watch.half_open:
                watch.queue.put_nowait(event)


class CallerListerWatcher:
    """Lists and watches by a control plane's plain calls, as dictionaries, the slow and obvious way."""

    def __init__(self, caller: Any, path: str) -> None:
        self._caller = caller
        self._path = path
        self.description = path.rpartition("/")[2]

    async def list(self, options: ListOptions) -> ListResult[Object]:
        found = await self._caller.call("GET", f"{self._path}?{_query(options)}")
        metadata = found["metadata"]
        return ListResult(found["items"], metadata["resourceVersion"], metadata.get("continue", ""))

    async def watch(self, options: WatchOptions) -> AsyncGenerator[WatchEvent[Object], None]:
        async with aclosing(self._caller.watch(f"{self._path}?{_query(options)}")) as events:
            async for kind, found in events:
                metadata = found["metadata"]
                version = metadata["resourceVersion"]
                if kind == "BOOKMARK":
                    ends = metadata.get("annotations", {}).get("k8s.io/initial-events-end") == "true"
                    yield WatchEvent("BOOKMARK", None, version, ends)
                else:
                    yield WatchEvent(kind, found, version)


def _query(options: ListOptions | WatchOptions) -> str:
    names = {
        "label_selector": "labelSelector",
        "field_selector": "fieldSelector",
        "resource_version": "resourceVersion",
        "resource_version_match": "resourceVersionMatch",
        "limit": "limit",
        "continue_": "continue",
        "allow_bookmarks": "allowWatchBookmarks",
        "send_initial_events": "sendInitialEvents",
        "timeout_seconds": "timeoutSeconds",
    }
    found = [(names[name], getattr(options, name)) for name in names if hasattr(options, name)]
    return "&".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in found if value
    )
