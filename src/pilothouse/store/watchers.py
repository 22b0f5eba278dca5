"""A watcher: what waits for one consumer, and how it is taken.

Watchers and the hub are one machine in two modules: the hub fills a watcher's buffer and moves it between states,
the watcher hands the buffer out. Only what has no underscore is for those who consume.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pilothouse.store.model import Event, WatchRequest, WatchResponse

if TYPE_CHECKING:
    from pilothouse.store.watchhub import WatchHub

__all__ = ["Batch", "Group", "State", "Watcher"]


class Batch(NamedTuple):
    """The events of one revision for one group; one object for all members.

    `charge` (events) and `size` (bytes) are what it takes of a buffer.
    """

    revision: int
    events: list[Event]
    charge: int
    size: int


class State(enum.Enum):
    """Where a watcher stands: reading history, waiting for its start to be written, hearing of each write, or over."""

    BEHIND = enum.auto()
    EARLY = enum.auto()
    LIVE = enum.auto()
    ENDED = enum.auto()


class Group:
    """Watchers of one range with the same filters; `end` is None without upper end, empty for a single key."""

    __slots__ = ("end", "filtered", "identity", "key", "live", "no_delete", "no_put", "watchers")

    def __init__(self, identity: tuple[bytes, bytes, bool, bool]) -> None:
        self.identity = identity
        self.key, range_end, self.no_put, self.no_delete = identity
        self.end = None if range_end == b"\0" else range_end
        self.filtered = self.no_put or self.no_delete
        self.live: dict[Watcher, None] = {}
        self.watchers = 0

    def wants(self, event: Event) -> bool:
        """Whether the filters let an event pass."""
        return not (self.no_delete if event.is_delete else self.no_put)

    def matches(self, event: Event) -> bool:
        """Whether an event concerns the range and passes the filters."""
        key = event.kv.key
        if self.end == b"":
            return key == self.key and self.wants(event)
        return key >= self.key and (self.end is None or key < self.end) and self.wants(event)


class Watcher:
    """One running watch.

    `on_ready` is called, synchronously, when there is something to take after there was nothing. After it, call
    `take` until it returns an empty list. `closed` says that nothing will come any more.
    """

    __slots__ = (
        "_bytes",
        "_count",
        "_final",
        "_group",
        "_hub",
        "_next",
        "_pending",
        "_progress",
        "_quiet_since",
        "_state",
        "_taken",
        "closed",
        "on_ready",
        "request",
    )

    def __init__(self, hub: WatchHub, request: WatchRequest, first: int) -> None:
        self.request = request
        self.on_ready: Callable[[], None] | None = None
        self.closed = False
        self._hub = hub
        self._group: Group | None = None
        self._state = State.ENDED
        self._pending: list[Batch] = []
        self._count = 0
        self._bytes = 0
        self._next = first  # first revision not yet looked at, while behind or early
        self._taken = first - 1  # every revision up to here is done with
        self._quiet_since = first - 1
        self._progress = False
        self._final: WatchResponse | None = None

    def take(self, max_events: int = 0) -> list[WatchResponse]:
        """Return what waits, consecutive revisions merged in one response; empty when there is nothing.

        `max_events` bounds the response (0: everything that waits), but a revision is never split. Lists of events
        are shared between watchers and must not be changed.
        """
        if self.closed:
            return []
        responses = [self._take_events(max_events)] if self._pending else []
        if self._pending:
            return responses
        if self._final is not None:
            responses.append(self._final)
            self.closed = True
        elif self._progress and self._state is State.LIVE:
            self._progress = False
            self._taken = self._quiet_since = self._hub.revision
            responses.append(WatchResponse(revision=self._hub.revision))
        if self._state is State.BEHIND:
            self._hub._read_on(self)
        return responses

    def _take_events(self, max_events: int) -> WatchResponse:
        batches = self._pending
        used = _fitting(batches, max_events) if max_events > 0 else len(batches)
        self._pending = batches[used:]
        batches = batches[:used]
        self._count -= sum(batch.charge for batch in batches)
        self._bytes -= sum(batch.size for batch in batches)
        self._taken = batches[-1].revision
        if len(batches) == 1:
            return WatchResponse(revision=self._taken, events=batches[0].events)
        events = [event for batch in batches for event in batch.events]
        return WatchResponse(revision=self._taken, events=events)

    def request_progress(self) -> None:
        """Ask for a response without events; it comes once everything before it has been taken."""
        if self._final is not None or self.closed or self._progress:
            return
        self._progress = True
        if self._state is State.LIVE and not self._pending:
            self._wake()

    def cancel(self) -> None:
        """End the watch at once; what waits is dropped."""
        self._hub._remove(self)
        self._drop()
        self.closed = True

    def _drop(self) -> None:
        self._pending = []
        self._count = self._bytes = 0

    def _end(self, reason: str, compact_revision: int = 0) -> None:
        """Let a last response follow what waits."""
        idle = not self._pending and not (self._progress and self._state is State.LIVE)
        self._hub._remove(self)
        last = self._pending[-1].revision if self._pending else self._taken
        self._final = WatchResponse(
            revision=max(last, 0), canceled=True, compact_revision=compact_revision, cancel_reason=reason
        )
        if idle:
            self._wake()

    def _wake(self) -> None:
        if self.on_ready is not None:
            self.on_ready()


def _fitting(batches: list[Batch], max_events: int) -> int:
    """Return how many batches have at most so many events together, but one at least."""
    total = len(batches[0].events)
    for used, batch in enumerate(batches[1:], 1):
        total += len(batch.events)
        if total > max_events:
            return used
    return len(batches)
