"""The watch hub: gives each write's events to those who watch its keys, and history to those who start late.

A pure state machine: apply calls `publish`, the engine calls `pump` while late starters read history, and whoever
serves a watcher calls `take` after its `on_ready`. Watchers with the same range and filters form a group. A write
looks up the groups of its keys (a dictionary for single keys, a segment map for ranges), builds one list of events
a group, and hands that list to each member: its cost depends on its own matches alone.

A watcher is *behind* while it reads history, *early* while its start is still to be written, and *live* otherwise.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sortedcontainers import SortedDict

from pilothouse.store.errors import Compacted
from pilothouse.store.model import Event, WatchFilter, WatchRequest, WatchResponse
from pilothouse.store.segments import SegmentMap

__all__ = ["History", "WatchHub", "Watcher"]

_SLICE = 256
"""Events read from history for one watcher before the next one's turn."""

EMPTY_RANGE = "mvcc: watcher range is empty"
"""etcd's reason for refusing a range whose end is not after its key."""


class History(Protocol):
    """What the key space tells about the past."""

    @property
    def revision(self) -> int:
        """The newest revision applied."""

    @property
    def compact_revision(self) -> int:
        """The revision of the last compaction: a watch may start there, not before."""

    def events_since(self, revision: int, limit: int) -> Sequence[tuple[int, Sequence[Event]]]:
        """Return whole revisions from `revision` on, in order, with about `limit` events; one revision at least."""


class _Batch(NamedTuple):
    """The events of one revision for one group; one object for all members."""

    revision: int
    events: list[Event]
    size: int


class _Slice(NamedTuple):
    """A piece of history as one group sees it, up to and without the revision `following`."""

    batches: list[_Batch]
    following: int
    looked_at: int


class _State(enum.Enum):
    BEHIND = enum.auto()
    EARLY = enum.auto()
    LIVE = enum.auto()
    ENDED = enum.auto()


class _Group:
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
        return not (self.no_delete if event.is_delete else self.no_put)

    def matches(self, event: Event) -> bool:
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
        self._group: _Group | None = None
        self._state = _State.ENDED
        self._pending: list[_Batch] = []
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
        elif self._progress and self._state is _State.LIVE:
            self._progress = False
            self._taken = self._quiet_since = self._hub.revision
            responses.append(WatchResponse(revision=self._hub.revision))
        if self._state is _State.BEHIND:
            self._hub._read_on(self)
        return responses

    def _take_events(self, max_events: int) -> WatchResponse:
        batches = self._pending
        if 0 < max_events < self._count:
            total = 0
            for used, batch in enumerate(batches):
                total += len(batch.events)
                if total > max_events and used:
                    self._pending = batches[used:]
                    batches = batches[:used]
                    break
            else:
                self._pending = []
        else:
            self._pending = []
        self._count = sum(len(batch.events) for batch in self._pending)
        self._bytes = sum(batch.size for batch in self._pending)
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
        if self._state is _State.LIVE and not self._pending:
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
        idle = not self._pending and not (self._progress and self._state is _State.LIVE)
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


class WatchHub:
    """All watchers of one store.

    `buffer_events` and `buffer_bytes` (keys and values, previous ones included) bound what may wait for one watcher;
    one over the bound is cancelled, the others are not slowed. A single revision larger than the bound is still
    delivered where nothing else waits, for otherwise no watcher could ever pass it. History fills half of the
    buffer at most, so that a watcher that has just caught up has room for what is being written.

    `on_behind` is called when there is work for `pump` after there was none.
    """

    def __init__(self, history: History, *, buffer_events: int = 10_000, buffer_bytes: int = 64 * 1024 * 1024) -> None:
        if buffer_events < 1 or buffer_bytes < 1:
            raise ValueError(f"watch buffer of {buffer_events} events and {buffer_bytes} bytes: both must be positive")
        self.on_behind: Callable[[], None] | None = None
        self.revision = history.revision
        self.slow_cancelled = 0
        self.compacted_cancelled = 0
        self._history = history
        self._buffer_events = buffer_events
        self._buffer_bytes = buffer_bytes
        self._groups: dict[tuple[bytes, bytes, bool, bool], _Group] = {}
        self._keys: dict[bytes, tuple[_Group, ...]] = {}
        self._ranges: SegmentMap[_Group] = SegmentMap()
        self._all: dict[Watcher, None] = {}
        self._notified: dict[Watcher, None] = {}
        self._behind: dict[Watcher, None] = {}
        self._readable: OrderedDict[Watcher, None] = OrderedDict()
        self._early: SortedDict[int, dict[Watcher, None]] = SortedDict()

    @property
    def watchers(self) -> int:
        """The number of running watchers."""
        return len(self._all)

    def watch(self, request: WatchRequest) -> Watcher:
        """Start a watch; a refused one has a canceled response as its first.

        An empty key means the smallest one. As in etcd a range whose end is not after its key is refused, and so is
        a start before the last compaction.
        """
        current = max(self.revision, self._history.revision)
        watcher = Watcher(self, request, request.start_revision or current + 1)
        key = request.key or b"\0"
        if request.range_end not in {b"", b"\0"} and request.range_end <= key:
            watcher._end(EMPTY_RANGE)
            return watcher
        compacted = self._history.compact_revision
        if watcher._next < max(compacted, 0):
            self.compacted_cancelled += 1
            watcher._end(Compacted.text, compacted if request.start_revision > 0 else 0)
            return watcher
        self._join_group(watcher, key)
        if watcher._next <= self.revision:
            watcher._state = _State.BEHIND
            self._behind[watcher] = None
            self._read_on(watcher)
        elif watcher._next == self.revision + 1:
            self._go_live(watcher)
        else:
            watcher._state = _State.EARLY
            self._early.setdefault(watcher._next, {})[watcher] = None
        return watcher

    def publish(self, revision: int, events: Sequence[Event]) -> None:
        """Hand the events of one new revision to their watchers; call once a revision, in order."""
        if revision != self.revision + 1:
            raise ValueError(f"revision {revision} published after {self.revision}: each revision once, in order")
        self.revision = revision
        ready: list[Watcher] = []
        if len(events) == 1:
            self._publish_one(revision, events[0], ready)
        else:
            self._publish_many(revision, events, ready)
        for watcher in ready:
            watcher._wake()
        while self._early and self._early.peekitem(0)[0] <= revision + 1:
            for watcher in self._early.popitem(0)[1]:
                self._go_live(watcher)

    def pump(self, budget: int = 1000) -> bool:
        """Let late starters read about `budget` events of history; return whether there is more to read now.

        A watcher whose buffer is full reads on only after a `take`, which calls `on_behind`.
        """
        shared: dict[tuple[_Group, int], _Slice] = {}
        while self._readable and budget > 0:
            watcher = self._readable.popitem(last=False)[0]
            budget -= self._read_slice(watcher, shared)
        return bool(self._readable)

    def compacted(self, revision: int) -> None:
        """Cancel those that have yet to read history from before `revision`."""
        for watcher in [each for each in self._behind if each._next < revision]:
            self._lose(watcher, revision)

    def idle_progress(self) -> None:
        """Send a progress report to those who asked for them, are live and had nothing since the last call."""
        for watcher in list(self._notified):
            if watcher._pending or watcher._taken > watcher._quiet_since:
                watcher._quiet_since = watcher._taken
            elif watcher._state is _State.LIVE:
                watcher.request_progress()

    def cancel_all(self, reason: str) -> None:
        """End all watches; what waits can still be taken, `reason` is told after it."""
        for watcher in list(self._all):
            if watcher in self._all:
                watcher._end(reason)

    def _join_group(self, watcher: Watcher, key: bytes) -> None:
        request = watcher.request
        no_put, no_delete = WatchFilter.NOPUT in request.filters, WatchFilter.NODELETE in request.filters
        identity = (key, request.range_end, no_put, no_delete)
        group = self._groups.get(identity)
        if group is None:
            group = self._groups[identity] = _Group(identity)
        group.watchers += 1
        watcher._group = group
        self._all[watcher] = None
        if request.progress_notify:
            self._notified[watcher] = None

    def _go_live(self, watcher: Watcher) -> None:
        group = watcher._group
        if group is None:
            return
        if not group.live:
            self._index(group)
        group.live[watcher] = None
        watcher._state = _State.LIVE
        if watcher._progress and not watcher._pending:
            watcher._wake()

    def _index(self, group: _Group) -> None:
        if group.end == b"":
            self._keys[group.key] = (*self._keys.get(group.key, ()), group)
        else:
            self._ranges.add(group.key, group.end, group)

    def _unindex(self, group: _Group) -> None:
        if group.end != b"":
            self._ranges.remove(group.key, group.end, group)
            return
        rest = tuple(each for each in self._keys[group.key] if each is not group)
        if rest:
            self._keys[group.key] = rest
        else:
            del self._keys[group.key]

    def _remove(self, watcher: Watcher) -> None:
        group, state = watcher._group, watcher._state
        watcher._group, watcher._state = None, _State.ENDED
        if group is None:
            return
        del self._all[watcher]
        self._notified.pop(watcher, None)
        group.watchers -= 1
        if not group.watchers:
            del self._groups[group.identity]
        if state is _State.LIVE:
            del group.live[watcher]
            if not group.live:
                self._unindex(group)
        elif state is _State.BEHIND:
            del self._behind[watcher]
            self._readable.pop(watcher, None)
        else:
            waiting = self._early.get(watcher._next, {})
            waiting.pop(watcher, None)
            if not waiting:
                self._early.pop(watcher._next, None)

    def _publish_one(self, revision: int, event: Event, ready: list[Watcher]) -> None:
        key = event.kv.key
        groups = self._ranges.covering(key)
        single = self._keys.get(key)
        if single is not None:
            groups = single + groups
        if not groups:
            return
        batch = _Batch(revision, [event], _size(event))
        for group in groups:
            if not group.filtered or group.wants(event):
                self._deliver(group, batch, ready)

    def _publish_many(self, revision: int, events: Sequence[Event], ready: list[Watcher]) -> None:
        found: dict[_Group, list[Event]] = {}
        sizes: dict[_Group, int] = {}
        for event in events:
            key = event.kv.key
            size = -1
            for group in self._keys.get(key, ()) + self._ranges.covering(key):
                if group.filtered and not group.wants(event):
                    continue
                if size < 0:
                    size = _size(event)
                found.setdefault(group, []).append(event)
                sizes[group] = sizes.get(group, 0) + size
        for group, chosen in found.items():
            self._deliver(group, _Batch(revision, chosen, sizes[group]), ready)

    def _deliver(self, group: _Group, batch: _Batch, ready: list[Watcher]) -> None:
        count, size = len(batch.events), batch.size
        max_count, max_bytes = self._buffer_events - count, self._buffer_bytes - size
        slow: list[Watcher] = []
        for watcher in group.live:
            pending = watcher._pending
            if not pending:
                watcher._count = count
                watcher._bytes = size
                # One that waits for progress has been woken already.
                if not watcher._progress:
                    ready.append(watcher)
            elif watcher._count > max_count or watcher._bytes > max_bytes:
                slow.append(watcher)
                continue
            else:
                watcher._count += count
                watcher._bytes += size
            pending.append(batch)
        for watcher in slow:
            self._give_up(watcher, watcher._count > max_count)

    def _give_up(self, watcher: Watcher, by_count: bool) -> None:
        self.slow_cancelled += 1
        bound = f"{self._buffer_events} events" if by_count else f"{self._buffer_bytes} bytes"
        watcher._drop()
        # Its owner has been woken for what was dropped, and finds the reason in its place.
        self._remove(watcher)
        watcher._final = WatchResponse(
            revision=watcher._taken,
            canceled=True,
            cancel_reason=f"slow consumer: more than {bound} waited; resume from revision {watcher._taken + 1}",
        )

    def _lose(self, watcher: Watcher, compact_revision: int) -> None:
        self.compacted_cancelled += 1
        watcher._end(Compacted.text, compact_revision)

    def _read_on(self, watcher: Watcher) -> None:
        if watcher in self._readable or not self._has_room(watcher):
            return
        idle = not self._readable
        self._readable[watcher] = None
        if idle and self.on_behind is not None:
            self.on_behind()

    def _has_room(self, watcher: Watcher) -> bool:
        if not watcher._pending:
            return True
        return watcher._count < self._buffer_events // 2 and watcher._bytes < self._buffer_bytes // 2

    def _read_slice(self, watcher: Watcher, shared: dict[tuple[_Group, int], _Slice]) -> int:
        """Move one slice of history to a watcher; return what that cost, in events looked at."""
        group = watcher._group
        if group is None:
            return 1
        compacted = self._history.compact_revision
        if watcher._next < compacted:
            self._lose(watcher, compacted)
            return 1
        place = (group, watcher._next)
        piece, cost = shared.get(place), 1
        if piece is None:
            # Watchers that start together, as after a broken connection, read history once for all of them.
            piece = shared[place] = self._slice(group, watcher._next)
            cost += piece.looked_at
        idle = not watcher._pending
        watcher._next = self._fill(watcher, piece)
        if watcher._next > self.revision:
            del self._behind[watcher]
            self._go_live(watcher)
        elif self._has_room(watcher):
            self._readable[watcher] = None
        if idle and watcher._pending:
            watcher._wake()
        return cost + len(piece.batches)

    def _slice(self, group: _Group, first: int) -> _Slice:
        batches = []
        looked_at, following = 0, self.revision + 1
        for revision, events in self._history.events_since(first, _SLICE):
            # What is applied but not yet published will come live.
            if revision > self.revision:
                following = self.revision + 1
                break
            looked_at += len(events)
            following = revision + 1
            chosen = [event for event in events if group.matches(event)]
            if chosen:
                batches.append(_Batch(revision, chosen, sum(map(_size, chosen))))
        return _Slice(batches, following, looked_at)

    def _fill(self, watcher: Watcher, piece: _Slice) -> int:
        """Buffer what there is room for; return the first revision still to be read."""
        for batch in piece.batches:
            if not self._has_room(watcher):
                return batch.revision
            watcher._pending.append(batch)
            watcher._count += len(batch.events)
            watcher._bytes += batch.size
        return piece.following


def _size(event: Event) -> int:
    size = len(event.kv.key) + len(event.kv.value)
    previous = event.prev_kv
    return size if previous is None else size + len(previous.key) + len(previous.value)
