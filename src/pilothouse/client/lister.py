"""Lists and watches for reflectors: one page, one watch, nothing tried again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from .calls import Caller
from .codecs import Codec, Page, RawEvent, open_page, read_events, read_header, read_page
from .errors import BadAnswer, TransportError
from .lean import LeanCodec
from .listwatch import INITIAL_EVENTS_END, ListOptions, ListResult, WatchEvent, WatchOptions
from .packed import Packed
from .resources import Mapping
from .selecting import Selector, query, selector_text
from .shelf import Shelf
from .watching import event_lines, refused

__all__ = ["ListWatch", "PackedListWatch"]

T = TypeVar("T")

_KNOWN = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


class ListWatch(Generic[T]):
    """One resource of one cluster, in all namespaces (`*`) or in one. It is a `ListerWatcher` and a `PackingSource`.

    labels, fields: narrow it down, besides what the options of a call say. idle_seconds: silence after which a watch
    counts as dead; None leaves that to the reflector, which has its own limit. managed_fields: whether objects have
    theirs.
    """

    def __init__(  # noqa: PLR0913  half of them have a default
        self,
        caller: Caller,
        mapping: Mapping,
        codec: Codec[T],
        namespace: str = "*",
        *,
        labels: Selector = "",
        fields: Selector = "",
        idle_seconds: float | None = None,
        managed_fields: bool = True,
    ) -> None:
        # The reflector waits and asks again by its own rules.
        self._caller = caller.once()
        self._plain = codec
        self._codec: Codec[T] = codec if managed_fields else LeanCodec(codec)
        self._managed_fields = managed_fields
        self._mapping = mapping
        self._namespace = namespace if mapping.namespaced else "*"
        self._path = mapping.collection("" if namespace == "*" else namespace)
        self._labels, self._fields = selector_text(labels), selector_text(fields)
        self._idle = idle_seconds
        where = f" in {namespace}" if mapping.namespaced and namespace != "*" else ""
        self._description = f"{mapping.name}{where}"

    @property
    def description(self) -> str:
        """What is listed."""
        return self._description

    @property
    def identity(self) -> Hashable:
        """What is the same for two that list the same as the same."""
        read_as = type(self._plain), self._managed_fields
        return self._mapping, self._namespace, self._labels, self._fields, read_as

    def without_managed_fields(self) -> ListWatch[T]:
        """Return the same, whose objects have no managed fields; sent back to the server they keep them."""
        return ListWatch(*self._parts(), **self._narrowed(), managed_fields=False)

    def packed(self, recent_bytes: int) -> PackedListWatch[T]:
        """Return the same for a cache that keeps objects packed."""
        shelf = Shelf(self._plain, recent_bytes, managed_fields=self._managed_fields)
        return PackedListWatch(shelf, *self._parts(), **self._narrowed(), managed_fields=self._managed_fields)

    def _parts(self) -> tuple[Caller, Mapping, Codec[T], str]:
        return self._caller, self._mapping, self._plain, self._namespace

    def _narrowed(self) -> dict[str, Any]:
        return {"labels": self._labels, "fields": self._fields, "idle_seconds": self._idle}

    async def list(self, options: ListOptions) -> ListResult[T]:
        """Ask for one page. Raises BadAnswer, a ValueError, where an object does not fit the type."""
        return _result(read_page(self._codec, await self._page(options), self._description))

    async def _page(self, options: ListOptions) -> bytes:
        target = self._path + query(
            labelSelector=_both(self._labels, options.label_selector),
            fieldSelector=_both(self._fields, options.field_selector),
            resourceVersion=options.resource_version,
            resourceVersionMatch=options.resource_version_match,
            limit=options.limit,
            continue_=options.continue_,
        )
        return await self._caller.call("GET", target, accept=self._codec.accept_list)

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
        read = self._read
        try:
            async with aclosing(event_lines(answer)) as pieces:
                async for lines in pieces:
                    for line in lines:
                        yield read(line)
        except BadAnswer as error:
            raise TransportError(f"{self._description}: {error}") from error

    def _read(self, line: bytes) -> WatchEvent[T]:
        """Read a line. Raises BadAnswer for one that is no event, and what an ERROR event carries."""
        (event,) = read_events([line])
        if event.type == "ERROR":
            raise refused(event)
        header = read_header(event.object)
        version = header.metadata.resource_version if header is not None else ""
        if event.type == "BOOKMARK":
            noted = header.metadata.annotations if header is not None else None
            return WatchEvent("BOOKMARK", None, version, bool(noted and noted.get(INITIAL_EVENTS_END) == "true"))
        if event.type not in _KNOWN:
            raise BadAnswer(f"watch: an event of type {event.type!r}")
        return self._event(event, version)

    def _event(self, event: RawEvent, version: str) -> WatchEvent[T]:
        try:
            found = self._codec.decode(event.object)
        except BadAnswer as error:
            return WatchEvent(event.type, None, version, False, error)  # type: ignore[arg-type]  # one of the three
        return WatchEvent(event.type, found, version)  # type: ignore[arg-type]  # as above


class PackedListWatch(ListWatch[Any], Generic[T]):
    """The same for a cache: its objects are `Packed`, all on one shelf, but for odd ones."""

    def __init__(self, shelf: Shelf[T], *parts: Any, **narrowed: Any) -> None:
        super().__init__(*parts, **narrowed)
        self.shelf = shelf

    async def list(self, options: ListOptions) -> ListResult[Packed[T] | T]:
        """Ask for one page. Raises BadAnswer, a ValueError, where an object does not fit the type."""
        listed = open_page(await self._page(options), self._description)
        pack = self.shelf.pack
        return _result(Page([pack(bytes(item)) for item in listed.items or ()], listed.metadata))

    def _read(self, line: bytes) -> WatchEvent[Any]:
        try:
            found = self.shelf.event(line)
        except BadAnswer:
            found = None
        if found is None:
            return super()._read(line)
        kind, packed = found
        return WatchEvent(kind, packed, packed.metadata.resource_version)  # type: ignore[arg-type]  # one of the three


def _result(page: Page[T]) -> ListResult[T]:
    metadata = page.metadata
    return ListResult(page.items, metadata.resource_version, metadata.continue_, metadata.remaining_item_count)


def _both(own: str, asked: str) -> str:
    return f"{own},{asked}" if own and asked else own or asked
