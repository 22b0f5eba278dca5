"""Who leads: decisions of one candidate from what it reads and writes of a lease and from its own clock, without IO."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

__all__ = [
    "Create",
    "ElectionAction",
    "ElectionCore",
    "ElectionOptions",
    "LeaseRecord",
    "Lost",
    "Pause",
    "Read",
    "Update",
]

_JITTER: Final = 1.2
_RELEASED_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a lease says. holder: empty where nobody holds it. Times are of the holder's clock and only shown."""

    holder: str = ""
    duration_seconds: int = 0
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    transitions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionOptions:
    """The times of an election, in seconds; the defaults are client-go's.

    lease_seconds: how long others wait after they last saw the leader renew. renew_seconds: how long the leader tries
    to renew before it gives up. retry_seconds: between tries. release: give the lease back when stopped.
    """

    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0
    release: bool = True

    def __post_init__(self) -> None:
        """Refuse times by which two could lead at once, or nobody."""
        if self.lease_seconds <= self.renew_seconds:
            raise ValueError(
                f"lease_seconds: {self.lease_seconds} must be greater than renew_seconds, {self.renew_seconds}: a "
                "leader has to give up before others take over"
            )
        if self.renew_seconds <= _JITTER * self.retry_seconds:
            raise ValueError(
                f"renew_seconds: {self.renew_seconds} must be greater than {_JITTER} times retry_seconds, "
                f"{self.retry_seconds}: one failed try must not cost the lease"
            )
        if self.lease_seconds < 1 or self.retry_seconds <= 0:
            raise ValueError("lease_seconds: want 1 or more, and retry_seconds more than 0")


@dataclass(frozen=True, slots=True)
class Read:
    """Read the lease; answer with `read`, or `failed`."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make the lease; answer with `written`, or `failed`."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Update:
    """Write the lease, if nobody else did since it was last read or written; answer with `written`, or `failed`."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds; answer with `waited`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease could not be renewed in time: stop what a leader does, at once. There is no next action."""


ElectionAction: TypeAlias = Read | Create | Update | Pause | Lost


class ElectionCore:
    """One candidate, as client-go's LeaderElector decides.

    Whether somebody else's lease has run out is judged by when this candidate saw it change, on its own monotonic
    clock: clocks of others may be wrong. Each method takes what happened, `now` in monotonic seconds, and returns what
    to do. `wall` is only written into the lease.
    """

    def __init__(
        self, identity: str, options: ElectionOptions | None = None, *, source: random.Random | None = None
    ) -> None:
        if not identity:
            raise ValueError(
                "identity: it is empty; each candidate needs one that no other has, such as its pod's name"
            )
        self.identity: Final = identity
        self.options: Final = options or ElectionOptions()
        self.observed = LeaseRecord()
        """The lease as last seen or written."""
        self.is_leader = False
        self._source = source or random.Random()  # noqa: S311  # spreads load, guards nothing
        self._observed_at = 0.0
        self._seen: LeaseRecord | None = None
        self._round_began = 0.0
        self._asked_at = 0.0
        self._optimistic = False
        self._wanted = LeaseRecord()
        self._round_over = False

    @property
    def leader(self) -> str:
        """Who holds the lease, as far as is known; empty if nobody."""
        return self.observed.holder

    @property
    def deadline(self) -> float:
        """When the present round of tries ends: what is asked of the server is given up then.

        Never later than others may take over, unless they may already.
        """
        end = self._round_began + self.options.renew_seconds
        expiry = self._observed_at + self.options.lease_seconds
        return min(end, expiry) if self.is_leader and expiry > self._round_began else end

    def holds(self, now: float) -> bool:
        """Whether it leads and its lease has not run out meanwhile."""
        return self.is_leader and now < self._observed_at + self.options.lease_seconds

    def overdue(self, now: float, tolerance: float = 0.0) -> bool:
        """Whether it believes to lead though its lease ran out more than `tolerance` seconds ago: for health checks."""
        return self.is_leader and now > self._observed_at + self.options.lease_seconds + tolerance

    def begin(self, now: float, wall: datetime) -> ElectionAction:
        """Start a round of tries."""
        self._round_began = now
        return self._try(now, wall)

    def waited(self, now: float, wall: datetime) -> ElectionAction:
        """Try again, or start the next round if the last one went well."""
        if self.is_leader and self._round_over:
            return self.begin(now, wall)
        if not self.is_leader:
            self._round_began = now
        elif now >= self.deadline:
            return self._lose()
        return self._try(now, wall)

    def read(self, record: LeaseRecord | None, now: float, wall: datetime) -> ElectionAction:
        """Take what the lease says; None where there is none."""
        mine = self._mine(wall)
        if record is None:
            self._wanted = mine
            self._asked_at = now
            return Create(mine)
        if record != self._seen:
            self._seen = record
            self._observe(record, now)
        held_by_me = record.holder == self.identity
        if record.holder and not held_by_me and self._is_valid(now):
            return self._failed(now)
        if held_by_me:
            mine = replace(mine, acquire_time=record.acquire_time, transitions=record.transitions)
        else:
            mine = replace(mine, transitions=record.transitions + 1)
        self._wanted = mine
        self._asked_at = now
        return Update(mine)

    def written(self, now: float) -> ElectionAction:
        """Note that the lease is ours: counted from when that was asked for."""
        self._observe(self._wanted, min(self._asked_at, now))
        self._seen = self._wanted
        self.is_leader = True
        self._round_over = True
        return Pause(self.options.retry_seconds)

    def failed(self, now: float, wall: datetime) -> ElectionAction:
        """Note that a call failed; look once more where it was the short way, else wait or give up."""
        if self._optimistic:
            self._optimistic = False
            return Read()
        del wall
        return self._failed(now)

    def release(self, record: LeaseRecord, wall: datetime) -> LeaseRecord | None:
        """Return what to write to give the lease back, or None where it is not ours any more."""
        if record.holder != self.identity:
            return None
        return LeaseRecord("", _RELEASED_SECONDS, wall, wall, record.transitions)

    def released(self) -> None:
        """Note that this candidate leads no more."""
        self.is_leader = False

    def _try(self, now: float, wall: datetime) -> ElectionAction:
        self._round_over = False
        self._optimistic = self.is_leader and self._is_valid(now)
        if not self._optimistic:
            return Read()
        self._wanted = replace(
            self._mine(wall), acquire_time=self.observed.acquire_time, transitions=self.observed.transitions
        )
        self._asked_at = now
        return Update(self._wanted)

    def _failed(self, now: float) -> ElectionAction:
        if not self.is_leader:
            return Pause(self.options.retry_seconds * (1.0 + _JITTER * self._source.random()))
        if self.leader != self.identity or now >= self.deadline:
            return self._lose()
        return Pause(max(min(self.options.retry_seconds, self.deadline - now), 0.0))

    def _lose(self) -> ElectionAction:
        self.is_leader = False
        return Lost()

    def _mine(self, wall: datetime) -> LeaseRecord:
        return LeaseRecord(self.identity, int(self.options.lease_seconds), wall, wall, 0)

    def _observe(self, record: LeaseRecord, now: float) -> None:
        self.observed = record
        self._observed_at = now

    def _is_valid(self, now: float) -> bool:
        return now < self._observed_at + self.observed.duration_seconds
