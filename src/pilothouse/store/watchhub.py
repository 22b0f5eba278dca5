"""The watch hub: gives each write's events to those who watch its keys, and history to those who start late.

A pure state machine: apply calls `publish`, the engine calls `pump` while late starters read history, and whoever
serves a watcher calls `take` after its `on_ready`. Watchers with the same range and filters form a group. A write
looks up the groups of its keys (a dictionary for single keys, a segment map for ranges), builds one list of events
a group, and hands that list to each member: its cost depends on its own matches alone.

A watcher is *behind* while it reads history, *early* while its start is still to be written, and *live* otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sortedcontainers import SortedDict

from pilothouse.store.errors import Compacted
from pilothouse.store.model import Event, WatchFilter, WatchRequest, WatchResponse
from pilothouse.store.segments import SegmentMap
from pilothouse.store.watchers import Batch, Group, State, Watcher

__all__ = ["History", "WatchHub", "Watcher"]

_SLICE = 256
"""Revisions read from history for one watcher before the next one's turn."""

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
        """Return up to `limit` whole revisions with their events, in order, from `revision` on."""


_SLICES_KEPT = 16
"""Slices kept for others who start at the same revision, as all watchers do after a broken connection."""


class _Slice(NamedTuple):
    """A piece of history as one group sees it, up to and without the revision `following`."""

    batches: list[Batch]
    following: int
    looked_at: int
    charge: int
    size: int


class WatchHub:
    """All watchers of one store.

    `buffer_events` and `buffer_bytes` (keys and values, previous ones included) bound what may wait for one watcher;
    one over the bound is cancelled, the others are not slowed. A revision is charged half of a buffer at most, for
    otherwise no watcher could ever pass one that is larger than its buffer; its events exist once for all. History
    fills half of a buffer at most, so that a watcher that has just caught up has room for what is being written.

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
        self._half_events = max(buffer_events // 2, 1)
        self._half_bytes = max(buffer_bytes // 2, 1)
        self._groups: dict[tuple[bytes, bytes, bool, bool], Group] = {}
        self._keys: dict[bytes, tuple[Group, ...]] = {}
        self._ranges: SegmentMap[Group] = SegmentMap()
        self._all: dict[Watcher, None] = {}
        self._notified: dict[Watcher, None] = {}
        self._behind: dict[Watcher, None] = {}
        self._readable: OrderedDict[Watcher, None] = OrderedDict()
        self._slices: OrderedDict[tuple[Group, int], _Slice] = OrderedDict()
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
            watcher._state = State.BEHIND
            self._behind[watcher] = None
            self._read_on(watcher)
        elif watcher._next == self.revision + 1:
            self._go_live(watcher)
        else:
            watcher._state = State.EARLY
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
        while self._readable and budget > 0:
            watcher = self._readable.popitem(last=False)[0]
            budget -= self._read_slice(watcher)
        if not self._readable:
            self._slices.clear()
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
            elif watcher._state is State.LIVE:
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
            group = self._groups[identity] = Group(identity)
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
        watcher._state = State.LIVE
        if watcher._progress and not watcher._pending:
            watcher._wake()

    def _index(self, group: Group) -> None:
        if group.end == b"":
            self._keys[group.key] = (*self._keys.get(group.key, ()), group)
        else:
            self._ranges.add(group.key, group.end, group)

    def _unindex(self, group: Group) -> None:
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
        watcher._group, watcher._state = None, State.ENDED
        if group is None:
            return
        del self._all[watcher]
        self._notified.pop(watcher, None)
        group.watchers -= 1
        if not group.watchers:
            del self._groups[group.identity]
        if state is State.LIVE:
            del group.live[watcher]
            if not group.live:
                self._unindex(group)
        elif state is State.BEHIND:
            del self._behind[watcher]
            self._readable.pop(watcher, None)
            if not self._readable:
                self._slices.clear()
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
        batch = Batch(revision, [event], 1, min(_size(event), self._half_bytes))
        for group in groups:
            if not group.filtered or group.wants(event):
                self._deliver(group, batch, ready)

    def _publish_many(self, revision: int, events: Sequence[Event], ready: list[Watcher]) -> None:
        found: dict[Group, list[Event]] = {}
        for event in events:
            key = event.kv.key
            for group in self._keys.get(key, ()) + self._ranges.covering(key):
                if not group.filtered or group.wants(event):
                    found.setdefault(group, []).append(event)
        for group, chosen in found.items():
            self._deliver(group, self._batch(revision, chosen), ready)

    def _batch(self, revision: int, events: list[Event]) -> Batch:
        size = sum(map(_size, events))
        return Batch(revision, events, min(len(events), self._half_events), min(size, self._half_bytes))

    def _deliver(self, group: Group, batch: Batch, ready: list[Watcher]) -> None:
        count, size = batch.charge, batch.size
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
            resume_revision=watcher._taken + 1,
        )

    def _lose(self, watcher: Watcher, compact_revision: int) -> None:
        self.compacted_cancelled += 1
        watcher._end(Compacted.text, compact_revision)

    def _read_on(self, watcher: Watcher) -> None:
        """Let a watcher that holds nothing read more."""
        if watcher in self._readable:
            return
        idle = not self._readable
        self._readable[watcher] = None
        if idle and self.on_behind is not None:
            self.on_behind()

    def _read_slice(self, watcher: Watcher) -> int:
        """Move one slice of history to a watcher; return what that cost, in events looked at."""
        group = watcher._group
        if group is None:
            return 1
        compacted = self._history.compact_revision
        if watcher._next < compacted:
            self._lose(watcher, compacted)
            return 1
        place = (group, watcher._next)
        piece, cost = self._slices.get(place), 1
        if piece is None:
            piece = self._slices[place] = self._slice(group, watcher._next)
            cost += piece.looked_at
            if len(self._slices) > _SLICES_KEPT:
                self._slices.popitem(last=False)
        idle = not watcher._pending
        watcher._next = self._fill(watcher, piece)
        if watcher._next > self.revision:
            del self._behind[watcher]
            self._go_live(watcher)
        elif watcher._next == piece.following and self._has_room(watcher, 1, 1):
            self._readable[watcher] = None
        if idle and watcher._pending:
            watcher._wake()
        return cost

    def _slice(self, group: Group, first: int) -> _Slice:
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
                batches.append(self._batch(revision, chosen))
        charge, size = sum(batch.charge for batch in batches), sum(batch.size for batch in batches)
        return _Slice(batches, following, looked_at, charge, size)

    def _fill(self, watcher: Watcher, piece: _Slice) -> int:
        """Buffer what there is room for; return the first revision still to be read."""
        if self._has_room(watcher, piece.charge, piece.size):
            watcher._pending += piece.batches
            watcher._count += piece.charge
            watcher._bytes += piece.size
            return piece.following
        for batch in piece.batches:
            if not self._has_room(watcher, batch.charge, batch.size):
                return batch.revision
            watcher._pending.append(batch)
            watcher._count += batch.charge
            watcher._bytes += batch.size
        return piece.following

    def _has_room(self, watcher: Watcher, count: int, size: int) -> bool:
        """Whether history of that charge still leaves room for what is being written."""
        return watcher._count + count <= self._half_events and watcher._bytes + size <= self._half_bytes


def _size(event: Event) -> int:
    size = len(event.kv.key) + len(event.kv.value)
    previous = event.prev_kv
    return size if previous is None else size + len(previous.key) + len(previous.value)
