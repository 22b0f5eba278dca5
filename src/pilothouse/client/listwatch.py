"""How one resource is listed and watched: the protocol between a reflector and whatever reaches the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from pilothouse.client.shelf import Shelf

__all__ = [
    "ADDED",
    "BOOKMARK",
    "DELETED",
    "INITIAL_EVENTS_END",
    "MODIFIED",
    "EventType",
    "ListOptions",
    "ListResult",
    "ListerWatcher",
    "PackedSource",
    "PackingSource",
    "ResourceVersionMatch",
    "WatchEvent",
    "WatchOptions",
    "WatchStream",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
ResourceVersionMatch = Literal["", "NotOlderThan", "Exact"]

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
BOOKMARK: Final = "BOOKMARK"

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""The annotation, with the value "true", of the bookmark that ends a streamed initial list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """The query of one LIST. A field that holds its default is not sent.

    resource_version: None is not sent (the most recent state); "" is the same; "0" takes any state that the server
    has at hand. limit: objects a page, 0 for all at once. continue_: the token of the page before.
    """

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str | None = None
    resource_version_match: ResourceVersionMatch = ""
    limit: int = 0
    continue_: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """The query of one WATCH. A field that holds its default is not sent, `allow_bookmarks` is sent if true.

    send_initial_events: True asks for the present objects as ADDED events, then a bookmark with
    `initial_events_end`; it goes with `resource_version_match="NotOlderThan"`. timeout_seconds: after which the
    server ends the stream; 0 leaves it to the server.
    """

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str | None = None
    resource_version_match: ResourceVersionMatch = ""
    allow_bookmarks: bool = True
    send_initial_events: bool | None = None
    timeout_seconds: int = 0


class ListResult(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list.

    resource_version: of the list's metadata, for the watch that follows. continue_: the token for the next page,
    empty on the last one. remaining: how many more there are, None if the server did not say.
    """

    items: Sequence[T]
    resource_version: str
    continue_: str = ""
    remaining: int | None = None


class WatchEvent(msgspec.Struct, Generic[T], frozen=True):
    """One event of a watch; give the arguments by position, which is faster.

    object: what the event carries; None for a bookmark, and where `error` is set. resource_version: of that object,
    of a bookmark too; empty only where it cannot be read. initial_events_end: of the bookmark that has the annotation
    `INITIAL_EVENTS_END`. error: why an object does not fit the type; the stream goes on after such an event.
    """

    type: EventType
    object: T | None
    resource_version: str
    initial_events_end: bool = False
    error: Exception | None = None


class WatchStream(Protocol[T_co]):
    """The events of one watch, in the server's order. An async generator is one.

    The iteration ends where the server ended the stream as it should (its timeout, a restart that said goodbye).
    Raises ApiStatus for an event of type ERROR, and OSError (ConnectionError, TimeoutError) where the connection
    broke or what came is no event. After either, the stream is over. Must hold no more than a bounded number of
    events and push back on the server beyond it.
    """

    def __aiter__(self) -> AsyncIterator[T_co]: ...

    async def __anext__(self) -> T_co: ...

    async def aclose(self) -> None:
        """End the watch and free its connection at once; more than once is fine. Does not wait for the server."""


class ListerWatcher(Protocol[T]):
    """One resource of one cluster, in all namespaces or in one: as typed structs, as dicts, or as their metadata.

    Objects are shared by all who see them: nobody changes them. Both calls can be cancelled at any time and leave
    nothing behind then. Errors of both: ApiStatus (`pilothouse.kinds.status`) for what the server refused, by its
    reason and with its `retry_after_seconds`; OSError for a server that cannot be reached or a connection that broke.
    Neither call tries again by itself: that is the reflector's part.
    """

    @property
    def description(self) -> str:
        """What is listed, for logs and metrics, such as "pods" or "deployments.apps in default"; few values."""

    async def list(self, options: ListOptions) -> ListResult[T]:
        """Ask for one page. Raises ValueError where an object does not fit the type; it names object and field."""

    def watch(self, options: WatchOptions) -> WatchStream[WatchEvent[T]]:
        """Begin a watch; the request is sent, and refusals are raised, with the first `__anext__`."""


class PackedSource(ListerWatcher[Any], Protocol[T_co]):
    """One resource, its objects as `Packed`, but for odd ones."""

    @property
    def shelf(self) -> Shelf[Any]:
        """Where they are packed."""


@runtime_checkable
class PackingSource(Protocol[T_co]):
    """A lister-watcher that reaches objects as the server sent them."""

    def packed(self, recent_bytes: int) -> PackedSource[T_co]:
        """Return the same for one cache, which keeps so much JSON as it came."""
