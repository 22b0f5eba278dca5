"""The lessor: leases, the keys bound to them, and which of them are due.

A pure state machine. What the log decides (grant, revoke, attach, detach) reads no clock; time only decides what
`expired` proposes for revocation and what `keep_alive` and `time_to_live` answer. A lease that has expired stays
until its revocation is applied, but can no longer be kept alive, so nobody is told that it lives and then loses it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pilothouse.store.errors import InvalidRequest, LeaseExists, LeaseNotFound, LeaseTtlTooLarge
from pilothouse.store.keyspace import LeaseTable

__all__ = ["MAX_TTL", "MIN_TTL", "Leases", "TimeToLive"]

MAX_TTL = 9_000_000_000
"""etcd's longest time to live, in seconds."""

MIN_TTL = 2
"""etcd's shortest one with its default election timeout; what is asked for below is raised to it."""

_STALE_ALLOWED = 1024
"""Entries of revoked leases that the heap may hold beyond the number of leases before it is built anew."""


class TimeToLive(NamedTuple):
    """Seconds left, seconds granted, and the attached keys in order."""

    remaining: int
    granted: int
    keys: list[bytes]


class _Lease:
    __slots__ = ("deadline", "keys", "scheduled", "ttl")

    def __init__(self, ttl: int, deadline: float) -> None:
        self.ttl = ttl
        self.deadline = deadline
        self.scheduled = 0  # number of its one valid entry in the heap
        self.keys: set[bytes] | None = None


class Leases(LeaseTable):
    """All leases of one store.

    `clock` returns monotonic seconds, `min_ttl` is in seconds and must be the same on every replay of a log. A lease
    given out by `expired` is given out again after `retry_interval` seconds unless it has been revoked by then.
    """

    def __init__(self, clock: Callable[[], float], *, min_ttl: int = MIN_TTL, retry_interval: float = 1.0) -> None:
        self._clock = clock
        self._min_ttl = min_ttl
        self._retry = retry_interval
        self._leases: dict[int, _Lease] = {}
        # One valid entry a lease: (time to look at it, number, lease id). Keep-alive moves the deadline only; the
        # entry follows when its time comes.
        self._heap: list[tuple[float, int, int]] = []
        self._number = itertools.count(1)

    def __len__(self) -> int:
        """Return the number of leases."""
        return len(self._leases)

    def __contains__(self, lease_id: object) -> bool:
        """Whether the lease exists."""
        return lease_id in self._leases

    def ids(self) -> list[int]:
        """Return all ids, the one that ends first at the front, as etcd lists them."""
        return sorted(self._leases, key=lambda lease_id: (self._leases[lease_id].deadline, lease_id))

    def grant(self, lease_id: int, ttl: int) -> int:
        """Create a lease and return the seconds granted, which are never fewer than the smallest allowed.

        Raises `InvalidRequest` for the id 0, which means no lease (choose an id before the command is logged),
        `LeaseTtlTooLarge` and `LeaseExists`.
        """
        if lease_id == 0:
            raise InvalidRequest("lease id 0 means no lease: an id must be chosen before the lease is granted")
        if ttl > MAX_TTL:
            raise LeaseTtlTooLarge
        if lease_id in self._leases:
            raise LeaseExists
        granted = max(ttl, self._min_ttl)
        self._add(lease_id, granted, self._clock() + granted)
        return granted

    def revoke(self, lease_id: int) -> list[bytes]:
        """Forget a lease; return its keys, sorted, for the caller to delete. Raises `LeaseNotFound`."""
        keys = self._find(lease_id).keys
        del self._leases[lease_id]
        if len(self._heap) > 2 * len(self._leases) + _STALE_ALLOWED:
            self._rebuild()
        return sorted(keys or ())

    def check(self, lease_id: int) -> None:
        """Raise `LeaseNotFound` unless the lease exists."""
        self._find(lease_id)

    def attach(self, lease_id: int, key: bytes) -> None:
        """Bind a key to a lease.

        An unknown lease is passed over: `check` has refused it for new writes, and where older changes are replayed
        on a newer table of leases the deletion of the key follows.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if lease.keys is None:
            lease.keys = {key}
        else:
            lease.keys.add(key)

    def detach(self, lease_id: int, key: bytes) -> None:
        """Free a key of a lease; unknown leases and keys are passed over, since revoking has freed them."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.keys is None:
            return
        lease.keys.discard(key)
        if not lease.keys:
            lease.keys = None

    def keys(self, lease_id: int) -> list[bytes]:
        """Return the keys of a lease in order; none for an unknown one."""
        lease = self._leases.get(lease_id)
        return [] if lease is None else sorted(lease.keys or ())

    def keep_alive(self, lease_id: int) -> int:
        """Start a lease's time anew; return it in seconds. Raises `LeaseNotFound`, for an expired one too."""
        lease = self._find(lease_id)
        now = self._clock()
        if lease.deadline <= now:
            raise LeaseNotFound
        lease.deadline = now + lease.ttl
        return lease.ttl

    def time_to_live(self, lease_id: int) -> TimeToLive:
        """Return what is left of a lease, 0 seconds where its revocation is under way. Raises `LeaseNotFound`."""
        lease = self._find(lease_id)
        return TimeToLive(max(int(lease.deadline - self._clock()), 0), lease.ttl, sorted(lease.keys or ()))

    def expired(self, limit: int) -> list[int]:
        """Return leases that are due now, after looking at `limit` at most.

        Call again while `next_deadline` is not in the future: a full look may have found only leases that had been
        kept alive meanwhile.
        """
        now = self._clock()
        due: list[int] = []
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                break
            _, number, lease_id = self._heap[0]
            lease = self._leases.get(lease_id)
            if lease is None or lease.scheduled != number:
                heapq.heappop(self._heap)
                continue
            again = lease.deadline
            if again <= now:
                due.append(lease_id)
                again = now + self._retry
            heapq.heapreplace(self._heap, self._entry(lease_id, lease, again))
        return due

    def next_deadline(self) -> float | None:
        """Return when to call `expired` next, in the clock's seconds; None where nothing can become due."""
        return self._heap[0][0] if self._heap else None

    def dump(self) -> list[tuple[int, int]]:
        """Return (id, seconds granted) of all leases, for a snapshot; keys carry their lease themselves."""
        return sorted((lease_id, lease.ttl) for lease_id, lease in self._leases.items())

    def load(self, leases: Iterable[tuple[int, int]]) -> None:
        """Replace all leases by those of a snapshot, with their full time; `attach` their keys after it."""
        now = self._clock()
        self._leases = {lease_id: _Lease(ttl, now + ttl) for lease_id, ttl in leases}
        self._rebuild()

    def restart(self) -> None:
        """Give every lease its full time from now, for nobody could keep it alive while the store was down."""
        now = self._clock()
        for lease in self._leases.values():
            lease.deadline = now + lease.ttl
        self._rebuild()

    def _find(self, lease_id: int) -> _Lease:
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFound
        return lease

    def _add(self, lease_id: int, ttl: int, deadline: float) -> None:
        lease = self._leases[lease_id] = _Lease(ttl, deadline)
        heapq.heappush(self._heap, self._entry(lease_id, lease, deadline))

    def _entry(self, lease_id: int, lease: _Lease, at: float) -> tuple[float, int, int]:
        lease.scheduled = next(self._number)
        return at, lease.scheduled, lease_id

    def _rebuild(self) -> None:
        self._heap = [self._entry(lease_id, lease, lease.deadline) for lease_id, lease in self._leases.items()]
        heapq.heapify(self._heap)
