"""What is watched as one user: objects of a resource, digested as they come, shared by the pages that look at them.

Informers would do, but keep whole objects and ask on and on for what a user may not see or a cluster does not have;
here only digests stay, and both are states that a page can say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pilothouse.client.errors import ClientError, UnknownKind
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, Expired, Forbidden, NotFound, Unauthorized

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.client.resourceclient import ResourceClient

__all__ = ["EVERYWHERE", "MOST_OBJECTS", "Digest", "Feed", "Feeds", "Source", "TooManyFeeds"]

EVERYWHERE: Final = "*"
MOST_OBJECTS: Final = 5_000
"""Of one resource that a feed keeps; what is over it is counted."""
_ABSENT_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 15.0
_BROKEN_SECONDS: Final = 2.0
_MOST_FEEDS: Final = 64

Digest = dict[str, Any]

_log = get_logger(__name__)


class TooManyFeeds(Exception):
    """A session looks at too much at once."""


class Source(NamedTuple):
    """A resource and what is kept of its objects. plural, group: as rights name it."""

    plural: str
    group: str
    version: str
    kind: str
    digest: Callable[[Mapping[str, Any]], Digest]

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


class Feed:
    """Objects of a source by NAMESPACE/NAME, as they are now.

    state: loading, live, absent (the cluster does not have the kind), refused (the user may not) or broken; message:
    why. left_out: objects beyond MOST_OBJECTS.
    """

    def __init__(self, client: Client, source: Source, namespace: str, clock: Clock, fields: str = "") -> None:
        self.source = source
        self.namespace = namespace
        self.items: dict[str, Digest] = {}
        self.state = "loading"
        self.message = ""
        self.left_out = 0
        self.listeners: set[Callable[[], object]] = set()
        self.users = 0
        self._fields = fields
        self._clock = clock
        self._calls: ResourceClient[dict[str, Any]] = client.dynamic(source.api_version, source.kind)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to list and watch."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End it; what it has stays as it is."""
        if self._task is not None:
            self._task.cancel()

    def _tell(self, state: str = "", message: str = "") -> None:
        if state:
            self.state, self.message = state, message
        for each in [*self.listeners]:
            each()

    async def _run(self) -> None:
        while True:
            wait = _BROKEN_SECONDS
            try:
                await self._follow()
                wait = 0.0
            except Expired:
                wait = 0.0
            except (UnknownKind, NotFound):
                self.items = {}
                self._tell("absent", f"this cluster has no {self.source.plural}")
                wait = _ABSENT_SECONDS
            except (Forbidden, Unauthorized) as error:
                self.items = {}
                self._tell("refused", error.message)
                wait = _REFUSED_SECONDS
            except (ApiStatus, ClientError, OSError) as error:
                self._tell("broken", getattr(error, "message", "") or str(error))
            except Exception as error:  # noqa: BLE001  # a page says it, and the others go on
                _log.error("a feed failed", resource=self.source.plural, error=repr(error), exc_info=True)
                self._tell("broken", f"{self.source.plural} cannot be read: {error!r}")
            await self._clock.sleep(wait)

    async def _follow(self) -> None:
        """List, then watch until the server ends it for good."""
        version, found, over = "", dict[str, Digest](), 0
        async with aclosing(self._calls.pages(self.namespace, fields=self._fields)) as pages:
            async for page in pages:
                version = page.metadata.resource_version or version
                for obj in page.items:
                    if len(found) < MOST_OBJECTS:
                        found[_key(obj)] = self.source.digest(obj)
                    else:
                        over += 1
        self.items, self.left_out = found, over
        self._tell("live")
        watch = self._calls.watch(self.namespace, fields=self._fields, since=version, resume=True)
        async with aclosing(watch) as events:
            async for event in events:
                self._take(event.type, event.object)

    def _take(self, kind: str, obj: Mapping[str, Any]) -> None:
        key = _key(obj)
        if kind == "DELETED":
            if self.items.pop(key, None) is None:
                self.left_out = max(0, self.left_out - 1)
        elif key in self.items or len(self.items) < MOST_OBJECTS:
            self.items[key] = self.source.digest(obj)
        elif kind == "ADDED":
            self.left_out += 1
        self._tell()


def _key(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata") or {}
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


class Feeds:
    """The feeds of one session, shared by its pages; one without a page is ended."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._feeds: dict[tuple[str, str, str], Feed] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    def take(self, source: Source, namespace: str, listener: Callable[[], object], fields: str = "") -> Feed:
        """Return a feed, started where it was not; `listener` is called at each change. Raises TooManyFeeds."""
        key = (source.plural, namespace, fields)
        found = self._feeds.get(key)
        if found is None:
            if len(self._feeds) >= _MOST_FEEDS:
                raise TooManyFeeds(f"{_MOST_FEEDS} lists are watched already; close some pages")
            found = self._feeds[key] = Feed(self._client, source, namespace, self._clock, fields)
            found.start()
        found.users += 1
        found.listeners.add(listener)
        return found

    def give_back(self, feed: Feed, listener: Callable[[], object]) -> None:
        """Say that a page does not need a feed any more."""
        feed.listeners.discard(listener)
        feed.users -= 1
        if feed.users <= 0:
            feed.stop()
            self._feeds = {key: each for key, each in self._feeds.items() if each is not feed}

    def close(self) -> None:
        """End all."""
        for feed in self._feeds.values():
            feed.stop()
        self._feeds.clear()
