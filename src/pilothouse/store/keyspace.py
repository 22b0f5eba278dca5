"""The multi-version key space: a pure state machine that answers reads and applies writes, one revision each.

Layout, chosen so that a key which was written once costs one struct, one dict entry and one slot in each order:

- `_live`: key → its current version; `_index`: the live keys in order;
- `_old`: key → versions that something newer replaced, ascending, for as long as compaction keeps them; a dead
  key's tombstone is the last of them; `_dead`: dead keys that still have such versions, in order;
- `_log`: what every revision since compaction changed, for watchers that start in the past and for paged lists.

Everything is synchronous and nothing here does input or output. Compaction is in two steps: `compact` draws the
line, `sweep` removes what is behind it in bounded slices, not while a reader pins a past revision.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

from pilothouse.store.changelog import Change, ChangeLog, each
from pilothouse.store.errors import Compacted, FutureRevision, KeyNotFound
from pilothouse.store.index import KeyIndex
from pilothouse.store.model import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from pilothouse.store.ranges import answer, is_plain

__all__ = ["VERSION_OVERHEAD", "KeySpace", "LeaseTable"]

VERSION_OVERHEAD = 96
"""What a retained version counts for beside its key and value, in bytes."""

_mod_revision: Callable[[KeyValue], int] = attrgetter("mod_revision")


class LeaseTable:
    """What the key space asks of leases; this one knows none."""

    def check(self, lease_id: int) -> None:
        """Raise `LeaseNotFound` unless the lease exists."""

    def attach(self, lease_id: int, key: bytes) -> None:
        """Bind a key to a lease."""

    def detach(self, lease_id: int, key: bytes) -> None:
        """Free a key of a lease."""


class KeySpace:
    """Keys, their versions and the order of changes."""

    def __init__(self, leases: LeaseTable | None = None) -> None:
        self.revision = 1
        self.compact_revision = -1  # as etcd says it where nothing has been compacted
        self.bytes_in_use = 0
        self._leases = LeaseTable() if leases is None else leases
        self._live: dict[bytes, KeyValue] = {}
        self._index = KeyIndex()
        self._old: dict[bytes, list[KeyValue]] = {}
        self._dead = KeyIndex()
        self._log = ChangeLog(2)
        self._changes: list[Event] = []
        self._pins = 0
        self.on_unpin: Callable[[], None] | None = None
        """Called when the last pin is gone, for what `sweep` had to leave."""

    def __len__(self) -> int:
        return len(self._live)

    @property
    def next_revision(self) -> int:
        """The revision that an open transaction will have: one more as soon as it changed something."""
        return self.revision + 1 if self._changes else self.revision

    # Reads

    def get(self, key: bytes) -> KeyValue | None:
        """Return the current version of a key."""
        return self._live.get(key)

    def range(self, request: RangeRequest) -> RangeResponse:
        """Answer a range at the current or a past revision; inside a transaction it sees what that wrote."""
        current = self.next_revision
        revision = self.check_revision(request.revision, current)
        if revision == current:
            kvs, count = self._range_now(request)
        else:
            kvs, count = self._range_then(request, revision)
        return answer(request, kvs, count, current)

    def check_revision(self, revision: int, current: int = 0) -> int:
        """Return the revision to read, `current` for 0; raise `FutureRevision` or `Compacted`."""
        current = current or self.revision
        if revision > current:
            raise FutureRevision
        if revision <= 0:
            return current
        if revision < self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        return revision

    def count(self, key: bytes, range_end: bytes) -> int:
        """Return the number of live keys in [key, range_end)."""
        if not range_end:
            return int(key in self._live)
        return self._index.count(key, range_end)

    def effort(self, request: RangeRequest) -> int:
        """Return about how many keys answering looks at, so that the caller can go in pieces."""
        if not request.range_end:
            return 1
        limit = request.limit if request.limit > 0 and is_plain(request) else 0
        live = self._index.count(request.key, request.range_end)
        if not 0 < request.revision < self.revision:
            return 1 if request.count_only else min(live, limit or live)
        dead = self._dead.count(request.key, request.range_end)
        counting = min(live + dead, self.revision - request.revision)
        reading = 0 if request.count_only else min(live, limit or live) + dead
        return max(counting, reading)

    def _range_now(self, request: RangeRequest) -> tuple[list[KeyValue], int]:
        live = self._live
        if not request.range_end:
            kv = live.get(request.key)
            found = [] if kv is None else [kv]
            return ([] if request.count_only else found), len(found)
        start, stop = self._index.bounds(request.key, request.range_end)
        if request.count_only:
            return [], stop - start
        end = min(stop, start + request.limit + 1) if request.limit > 0 and is_plain(request) else stop
        return [live[key] for key in self._index.slice(start, end)], stop - start

    def _range_then(self, request: RangeRequest, revision: int) -> tuple[list[KeyValue], int]:
        if not request.range_end:
            kv = self.version_at(request.key, revision)
            found = [] if kv is None else [kv]
            return ([] if request.count_only else found), len(found)
        count = self._count_then(request.key, request.range_end, revision)
        if request.count_only:
            return [], count
        limit = request.limit + 1 if request.limit > 0 and is_plain(request) else 0
        kvs: list[KeyValue] = []
        for kv in self.versions_at(request.key, request.range_end, revision):
            kvs.append(kv)
            if len(kvs) == limit:
                break
        return kvs, count

    def _count_then(self, key: bytes, range_end: bytes, revision: int) -> int:
        """Count at a past revision by undoing the changes since, or by looking at every key, whichever is less."""
        start, stop = self._index.bounds(key, range_end)
        if self.revision - revision > stop - start + self._dead.count(key, range_end):
            return sum(1 for _ in self.versions_at(key, range_end, revision))
        changes: list[Change] = [*self._log.since(revision + 1), tuple(event.kv for event in self._changes)]
        touched = {
            kv.key
            for change in changes
            for kv in each(change)
            if key <= kv.key and (range_end == b"\0" or kv.key < range_end)
        }
        gained = sum(1 for one in touched if one in self._live)
        return stop - start - gained + sum(1 for one in touched if self.version_at(one, revision) is not None)

    def version_at(self, key: bytes, revision: int) -> KeyValue | None:
        """Return the version that was current at a past revision."""
        kv = self._live.get(key)
        if kv is not None and kv.mod_revision <= revision:
            return kv
        old = self._old.get(key)
        if not old:
            return None
        place = bisect_right(old, revision, key=_mod_revision)
        kv = old[place - 1] if place else None
        return kv if kv is not None and kv.version else None

    def versions_at(self, key: bytes, range_end: bytes, revision: int) -> Iterator[KeyValue]:
        """Walk the keys that lived at a past revision, in order."""
        for chunk in self.chunks_at(key, range_end, revision):
            yield from chunk

    def chunks_at(self, key: bytes, range_end: bytes, revision: int, chunk: int = 1000) -> Iterator[list[KeyValue]]:
        """Walk in steps of `chunk` keys looked at, some of which may not have lived; changes in between are fine."""
        for keys in _merged(self._index, self._dead, key, range_end, chunk):
            yield [kv for one in keys if (kv := self.version_at(one, revision)) is not None]

    # Writes: a transaction is any number of puts and deletes, then `commit`

    def check_put(self, request: PutRequest) -> None:
        """Refuse a put whose lease is unknown, or that keeps a value or lease which is not there."""
        if request.lease:
            self._leases.check(request.lease)
        if (request.ignore_value or request.ignore_lease) and request.key not in self._live:
            raise KeyNotFound

    def put(self, request: PutRequest) -> PutResponse:
        """Write a key at the next revision; `check_put` must have passed."""
        key = request.key
        value = request.value
        lease = request.lease
        revision = self.revision + 1
        previous = self._live.get(key)
        if previous is None:
            kv = KeyValue(key, value, revision, revision, 1, lease, len(self._changes))
        else:
            key = previous.key
            if request.ignore_value:
                value = previous.value
            if request.ignore_lease:
                lease = previous.lease
            kv = KeyValue(
                key, value, previous.create_revision, revision, previous.version + 1, lease, len(self._changes)
            )
            if previous.lease:
                self._leases.detach(previous.lease, key)
        if lease:
            self._leases.attach(lease, key)
        self._install(kv, previous)
        return PutResponse(revision, previous if request.prev_kv else None)

    def _install(self, kv: KeyValue, previous: KeyValue | None) -> None:
        key = kv.key
        if previous is None:
            self._index.add(key)
            if key in self._old:
                self._dead.remove(key)
        else:
            self._retire(previous)
        self._live[key] = kv
        self.bytes_in_use += len(key) + len(kv.value) + VERSION_OVERHEAD
        self._changes.append(Event(kv, self._before(previous, kv)))

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """Delete keys at the next revision."""
        if request.range_end:
            keys = self._index.range(request.key, request.range_end)
        else:
            keys = [request.key] if request.key in self._live else []
        gone = [self._delete(key) for key in keys]
        return DeleteRangeResponse(self.next_revision, len(gone), gone if request.prev_kv else [])

    def _delete(self, key: bytes) -> KeyValue:
        previous = self._bury(KeyValue(key, b"", 0, self.revision + 1, 0, 0, len(self._changes)))
        if previous.lease:
            self._leases.detach(previous.lease, key)
        return previous

    def _bury(self, tombstone: KeyValue) -> KeyValue:
        key = tombstone.key
        previous = self._live.pop(key)
        self._index.remove(key)
        self._dead.add(key)
        self._retire(previous).append(tombstone)
        self.bytes_in_use += len(key) + VERSION_OVERHEAD
        self._changes.append(Event(tombstone, self._before(previous, tombstone)))
        return previous

    def _before(self, previous: KeyValue | None, kv: KeyValue) -> KeyValue | None:
        """Return what was there before the revision of `kv`, which may be the second change of its key in it."""
        if previous is None or previous.mod_revision != kv.mod_revision:
            return previous
        return self._previous(kv)

    def _retire(self, previous: KeyValue) -> list[KeyValue]:
        old = self._old.get(previous.key)
        if old is None:
            old = self._old[previous.key] = [previous]
        else:
            old.append(previous)
        return old

    def commit(self) -> Sequence[Event]:
        """Make what was written since the last commit one revision; return its events, none if nothing changed."""
        events = self._changes
        if not events:
            return ()
        self.revision += 1
        self._log.append(events[0].kv if len(events) == 1 else tuple([event.kv for event in events]))
        self._changes = []
        return events

    # History

    def changes_since(self, revision: int, limit: int) -> list[Change]:
        """Return what up to `limit` revisions changed, from `revision` on (which must not be compacted)."""
        return self._log.since(revision, limit)

    def events_since(self, revision: int, limit: int) -> list[tuple[int, Sequence[Event]]]:
        """Return the events of up to `limit` whole revisions, from `revision` on."""
        first = max(revision, self._log.start)
        return [
            (first + number, [Event(kv, self._previous(kv)) for kv in each(change)])
            for number, change in enumerate(self.changes_since(first, limit))
        ]

    def _previous(self, kv: KeyValue) -> KeyValue | None:
        if kv.version == 1:
            return None
        old = self._old.get(kv.key, [])
        place = bisect_left(old, kv.mod_revision, key=_mod_revision)
        return old[place - 1] if place and old[place - 1].version else None

    def compact(self, revision: int) -> None:
        """Draw the line: revisions before `revision` can no longer be read; `sweep` frees them."""
        if revision <= self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        if revision > self.revision:
            raise FutureRevision
        self.compact_revision = revision

    def pin(self) -> None:
        """Keep everything that is there now until `unpin`, for a reader of a past revision."""
        self._pins += 1

    def unpin(self) -> None:
        """Let go of a `pin`."""
        self._pins -= 1
        if not self._pins and self.on_unpin is not None:
            self.on_unpin()

    def sweepable(self, up_to: int) -> bool:
        """Whether `sweep` would find something to remove."""
        return self._log.start < min(self.compact_revision, up_to)

    def sweep(self, up_to: int, budget: int) -> bool:
        """Remove versions that compaction gave up, for at most `budget` revisions; return whether some are left.

        Only changes up to the revision `up_to` are looked at (what a checkpoint has on disk).
        """
        last = min(self.compact_revision, up_to)
        log = self._log
        if self._pins or log.start > last:
            return False
        number = min(budget, last - log.start + 1)
        for change in log.since(log.start, number):
            for kv in each(change):
                self._drop_before(kv, last)
        if log.start + number > last:
            number -= 1  # the line's own revision stays: a watch may start there
        log.drop(number)
        return log.start < last

    def _drop_before(self, kv: KeyValue, line: int) -> None:
        old = self._old.get(kv.key)
        if old is None:
            return
        place = bisect_left(old, kv.mod_revision, key=_mod_revision)
        while place < len(old) and old[place].mod_revision == kv.mod_revision and old[place] is not kv:
            place += 1  # the same transaction changed the key before
        if place < len(old) and old[place] is kv and not kv.version and kv.mod_revision < line:
            place += 1  # a tombstone before the line says nothing that absence does not
        self.bytes_in_use -= sum(len(one.key) + len(one.value) + VERSION_OVERHEAD for one in old[:place])
        del old[:place]
        if not old:
            del self._old[kv.key]
            if kv.key not in self._live:
                self._dead.remove(kv.key)

    # Copies: what a checkpoint writes and reads (`pilothouse.store.images`)

    def live_at(self, revision: int, after: bytes | None, limit: int) -> tuple[list[KeyValue], bytes | None]:
        """Return versions of the next `limit` keys behind `after`, and where to go on (None: nothing left)."""
        keys = _merge_chunk(self._index.after(after, limit), self._dead.after(after, limit), limit)
        live = self._live
        kvs: list[KeyValue] = []
        for key in keys:
            kv = live.get(key)
            if kv is None or kv.mod_revision > revision:
                kv = self.version_at(key, revision)
            if kv is not None:
                kvs.append(kv)
        return kvs, (keys[-1] if keys else None)

    def old_keys(self) -> list[bytes]:
        """Return the keys that have replaced versions."""
        return list(self._old)

    def old_at(self, keys: Sequence[bytes], revision: int) -> list[KeyValue]:
        """Return the versions of `keys` that had been replaced at `revision`, tombstones with them."""
        found: list[KeyValue] = []
        for key in keys:
            old = self._old.get(key, ())
            end = bisect_right(old, revision, key=_mod_revision)
            if end and self.version_at(key, revision) is old[end - 1]:
                end -= 1  # replaced only later
            found += old[:end]
        return found

    def load(self, live: list[KeyValue], old: list[KeyValue], revision: int, compact_revision: int) -> None:
        """Fill an empty key space: `live` in key order, `old` ascending for each key. Leases: `attach_all`."""
        self.revision = revision
        self.compact_revision = compact_revision
        self._live = {kv.key: kv for kv in live}
        self._index = KeyIndex(self._live)
        for kv in old:
            self._old.setdefault(kv.key, []).append(kv)
        self._dead = KeyIndex(sorted(key for key in self._old if key not in self._live))
        self.bytes_in_use = sum(sum([len(kv.key) + len(kv.value) for kv in kvs]) for kvs in (live, old))
        self.bytes_in_use += VERSION_OVERHEAD * (len(live) + len(old))
        self._log = ChangeLog.rebuilt((live, old), max(2, compact_revision), revision)
        self._drop_given_up()

    def _drop_given_up(self) -> None:
        """Remove what a sweep had not come to when the copy was made, for the log of changes does not lead to it."""
        line = self.compact_revision
        for key in [key for key, old in self._old.items() if old[0].mod_revision <= line]:
            newest = self._live.get(key)
            if newest is None or newest.mod_revision > line:
                old = self._old[key]
                newest = old[bisect_right(old, line, key=_mod_revision) - 1]
            self._drop_before(newest, line)

    def replay(self, changes: Sequence[KeyValue]) -> None:
        """Add changes in their order, as a delta table holds them; `commit` after the last one."""
        for kv in changes:
            if kv.mod_revision != self.revision + 1 and self._changes:
                self.commit()
            if kv.version:
                self._install(kv, self._live.get(kv.key))
            else:
                self._bury(kv)

    def attach_all(self) -> None:
        """Bind live keys to their leases, after `load` and `replay` and once the leases are there."""
        for kv in self._live.values():
            if kv.lease:
                self._leases.attach(kv.lease, kv.key)

    def versions(self) -> tuple[list[KeyValue], list[tuple[list[KeyValue], KeyValue | None]]]:
        """Return all current versions, and for each key with replaced ones those and its current one."""
        return list(self._live.values()), [(list(old), self._live.get(key)) for key, old in self._old.items()]


def _merge_chunk(live: list[bytes], dead: list[bytes], limit: int) -> list[bytes]:
    return sorted(live + dead)[:limit] if dead else live


def _merged(live: KeyIndex, dead: KeyIndex, key: bytes, range_end: bytes, chunk: int) -> Iterator[list[bytes]]:
    """Walk the keys of both indexes in [key, range_end) in order, `chunk` at a time."""
    start = key
    while True:
        keys = _merge_chunk(live.range(start, range_end, chunk), dead.range(start, range_end, chunk), chunk)
        if not keys:
            return
        yield keys
        start = keys[-1] + b"\0"
