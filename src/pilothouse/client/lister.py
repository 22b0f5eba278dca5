"""Lists and watches for reflectors: one page, one watch, nothing tried again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

from .calls import Caller
from .codecs import Codec, RawEvent, read_header, read_page
from .errors import BadAnswer, TransportError
from .listwatch import INITIAL_EVENTS_END, ListOptions, ListResult, WatchEvent, WatchOptions
from .resources import Mapping
from .selecting import Selector, query, selector_text
from .watching import raw_events

__all__ = ["ListWatch"]

T = TypeVar("T")

_KNOWN = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


class ListWatch(Generic[T]):
    """One resource of one cluster, in all namespaces (`*`) or in one. It is a `ListerWatcher`.

    labels, fields: narrow it down, besides what the options of a call say. idle_seconds: silence after which a watch
    counts as dead; None leaves that to the reflector, which has its own limit.
    """

    def __init__(
        self,
        caller: Caller,
        mapping: Mapping,
        codec: Codec[T],
        namespace: str = "*",
        *,
        labels: Selector = "",
        fields: Selector = "",
        idle_seconds: float | None = None,
    ) -> None:
        # The reflector waits and asks again by its own rules.
        self._caller = caller.once()
        self._codec = codec
        self._path = mapping.collection("" if namespace == "*" else namespace)
        self._labels, self._fields = selector_text(labels), selector_text(fields)
        self._idle = idle_seconds
        where = f" in {namespace}" if mapping.namespaced and namespace != "*" else ""
        self._description = f"{mapping.name}{where}"

    @property
    def description(self) -> str:
        """What is listed."""
        return self._description

    async def list(self, options: ListOptions) -> ListResult[T]:
        """Ask for one page. Raises BadAnswer, a ValueError, where an object does not fit the type."""
        target = self._path + query(
            labelSelector=_both(self._labels, options.label_selector),
            fieldSelector=_both(self._fields, options.field_selector),
            resourceVersion=options.resource_version,
            resourceVersionMatch=options.resource_version_match,
            limit=options.limit,
            continue_=options.continue_,
        )
        data = await self._caller.call("GET", target, accept=self._codec.accept_list)
        page = read_page(self._codec, data, self._description)
        metadata = page.metadata
        return ListResult(page.items, metadata.resource_version, metadata.continue_, metadata.remaining_item_count)

    async def watch(self, options: WatchOptions) -> AsyncGenerator[WatchEvent[T], None]:
        """Begin a watch; the request is sent with the first `__anext__`."""
        target = self._path + query(
            watch=True,
            labelSelector=_both(self._labels, options.label_selector),
            fieldSelector=_both(self._fields, options.field_selector),
            resourceVersion=options.resource_version,
            resourceVersionMatch=options.resource_version_match,
            allowWatchBookmarks=options.allow_bookmarks,
            sendInitialEvents=None if options.send_initial_events is None else str(options.send_initial_events).lower(),
            timeoutSeconds=options.timeout_seconds,
        )
        idle = self._idle if options.allow_bookmarks else None
        answer = await self._caller.request("GET", target, stream=True, idle=idle, accept=self._codec.accept)
        try:
            async with aclosing(raw_events(answer)) as events:
                async for event in events:
                    yield self._read(event)
        except BadAnswer as error:
            raise TransportError(f"{self._description}: {error}") from error

    def _read(self, event: RawEvent) -> WatchEvent[T]:
        header = read_header(event.object)
        version = header.metadata.resource_version if header is not None else ""
        if event.type == "BOOKMARK":
            noted = header.metadata.annotations if header is not None else None
            return WatchEvent("BOOKMARK", None, version, bool(noted and noted.get(INITIAL_EVENTS_END) == "true"))
        if event.type not in _KNOWN:
            raise BadAnswer(f"watch: an event of type {event.type!r}")
        try:
            found = self._codec.decode(event.object)
        except BadAnswer as error:
            return WatchEvent(event.type, None, version, False, error)  # type: ignore[arg-type]  # checked above
        return WatchEvent(event.type, found, version)  # type: ignore[arg-type]  # checked above


def _both(own: str, asked: str) -> str:
    return f"{own},{asked}" if own and asked else own or asked
