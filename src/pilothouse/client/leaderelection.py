"""Leader election on a Lease: runs work while this process leads, and stops it before anybody else begins."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pilothouse.client.deadline import within
from pilothouse.client.election_core import (
    Create,
    ElectionAction,
    ElectionCore,
    ElectionOptions,
    LeaseRecord,
    Lost,
    Pause,
    Read,
    Update,
)
from pilothouse.client.metrics import Sample, register
from pilothouse.client.objects import resource_version_of
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists, ApiStatus, Conflict, NotFound
from pilothouse.kinds.structs import Lease
from pilothouse.kinds.structs import replace as replaced
from pilothouse.kinds.structs.coordination import LeaseSpec
from pilothouse.kinds.structs.meta import ObjectMeta

if TYPE_CHECKING:
    from pilothouse.foundation.metrics import Metrics

__all__ = ["LeaderElector", "LeadershipLostError", "LeaseClient", "LeaseLock", "Lock"]

R = TypeVar("R")

_log = get_logger("pilothouse.client.leaderelection")


class LeadershipLostError(Exception):
    """The lease could not be renewed in time: somebody else may lead now."""


class Lock(Protocol):
    """Where the record of the leader is kept. Errors: ApiStatus, OSError."""

    @property
    def description(self) -> str:
        """What it is, for logs."""

    async def read(self) -> LeaseRecord | None:
        """Return the record, None where there is none; remembers its version."""

    async def create(self, record: LeaseRecord) -> None:
        """Make the record; remembers its version. Raises AlreadyExists."""

    async def update(self, record: LeaseRecord) -> None:
        """Write the record if it has the version last seen. Raises Conflict."""


class LeaseClient(Protocol):
    """What a lease needs of a client."""

    async def get(self, kind: type[Lease], name: str, namespace: str, /) -> Lease: ...
    async def create(self, obj: Lease, /) -> Any: ...
    async def update(self, obj: Lease, /) -> Any: ...


class LeaseLock:
    """A Lease of `coordination.k8s.io`, as controllers written in Go use it."""

    def __init__(self, client: LeaseClient, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._last: Lease | None = None

    @property
    def description(self) -> str:
        return f"lease {self._namespace}/{self._name}"

    async def read(self) -> LeaseRecord | None:
        try:
            self._last = await self._client.get(Lease, self._name, self._namespace)
        except NotFound:
            self._last = None
            return None
        return _record(self._last.spec)

    async def create(self, record: LeaseRecord) -> None:
        lease = Lease(metadata=ObjectMeta(name=self._name, namespace=self._namespace), spec=_spec(LeaseSpec(), record))
        self._last = await self._client.create(lease)

    async def update(self, record: LeaseRecord) -> None:
        last = self._last
        if last is None or not resource_version_of(last):
            raise Conflict(f"{self.description}: it was not read yet")
        self._last = await self._client.update(replaced(last, spec=_spec(last.spec, record)))


class LeaderElector:
    """One candidate for one lock.

    identity: that no other candidate has. on_new_leader: is told whenever another one, or this one, leads.
    """

    def __init__(
        self,
        lock: Lock,
        identity: str,
        options: ElectionOptions | None = None,
        *,
        on_new_leader: Callable[[str], object] | None = None,
        clock: Clock | None = None,
        source: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.core: Final = ElectionCore(identity, options, source=source)
        self.transitions = 0
        """How often this candidate began to lead."""
        self._lock = lock
        self._on_new_leader = on_new_leader
        self._reported = ""
        self._clock = clock or SystemClock()
        register(self, metrics)

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads now; false too where its lease ran out while the process stood still."""
        return self.core.holds(self._clock.monotonic())

    @property
    def leader(self) -> str:
        """Who leads, as far as is known; empty if nobody."""
        return self.core.leader

    def problem(self, tolerance: float = 0.0) -> str:
        """Say what is wrong, for health checks; empty if nothing."""
        if not self.core.overdue(self._clock.monotonic(), tolerance):
            return ""
        return f"{self._lock.description}: {self.core.identity} leads but could not renew its lease in time"

    def samples(self) -> Iterable[Sample]:
        """Return the candidate's figures."""
        labels = {"lock": self._lock.description}
        for kind, name, text, value in (
            ("gauge", "leads", "Whether this process leads", float(self.is_leader)),
            ("gauge", "lease_overdue", "Whether it could not renew its lease in time", float(bool(self.problem()))),
            ("counter", "transitions_total", "How often this process began to lead", float(self.transitions)),
        ):
            yield Sample(kind, f"pilothouse_client_leader_{name}", text, labels, value)  # type: ignore[arg-type]

    async def run(self, lead: Callable[[], Awaitable[R]]) -> R:
        """Wait until this candidate leads, then do `lead` and renew meanwhile; return what it returns.

        Raises LeadershipLostError when the lease is lost, after `lead` was cancelled and has ended. Cancelled, it
        cancels `lead`, waits for it and gives the lease back.
        """
        action = self.core.begin(self._clock.monotonic(), self._clock.now())
        while not self.core.is_leader:
            action = await self._do(action)
        self.transitions += 1
        _log.info("became leader", lock=self._lock.description, identity=self.core.identity)
        work = asyncio.ensure_future(lead())
        renewing = asyncio.create_task(self._renew(action), name=f"renew {self._lock.description}")
        try:
            await asyncio.wait([work, renewing], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            renewing.result()  # a failure of our own is raised as it is
            _log.error("lost the lease", lock=self._lock.description, identity=self.core.identity)
            raise LeadershipLostError(
                f"{self._lock.description}: {self.core.identity} could not renew it within "
                f"{self.core.options.renew_seconds:g} s; the leader last seen is {self.core.leader or 'nobody'}"
            )
        finally:
            await self._end(work, renewing)
            await self._give_up()

    async def _renew(self, action: ElectionAction) -> None:
        while not isinstance(action, Lost):
            action = await self._do(action)

    async def _do(self, action: ElectionAction) -> ElectionAction:
        core, clock = self.core, self._clock
        if isinstance(action, Pause):
            await clock.sleep(action.seconds)
            return core.waited(clock.monotonic(), clock.now())
        found: LeaseRecord | None = None
        try:
            left = max(core.deadline - clock.monotonic(), 0.001)
            async with within(clock, left, self._lock.description):
                if isinstance(action, Read):
                    found = await self._lock.read()
                elif isinstance(action, Create):
                    await self._lock.create(action.record)
                elif isinstance(action, Update):
                    await self._lock.update(action.record)
        except Exception as error:  # noqa: BLE001  whatever it is, the lease was not renewed, and that is what counts
            if not isinstance(error, AlreadyExists | Conflict):
                _log.warning("lease not read or written", lock=self._lock.description, error=repr(error))
            following = core.failed(clock.monotonic(), clock.now())
        else:
            if isinstance(action, Read):
                following = core.read(found, clock.monotonic(), clock.now())
            else:
                following = core.written(clock.monotonic())
        self._report()
        return following

    def _report(self) -> None:
        if self.core.leader != self._reported:
            self._reported = self.core.leader
            _log.info("new leader", lock=self._lock.description, leader=self._reported)
            if self._on_new_leader is not None:
                self._on_new_leader(self._reported)

    @staticmethod
    async def _end(*tasks: asyncio.Future[Any]) -> None:
        """Cancel tasks and wait for their end, even if we are cancelled meanwhile."""
        late: asyncio.CancelledError | None = None
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                late = error
        if late is not None:
            raise late

    async def _give_up(self) -> None:
        if self.core.is_leader and self.core.options.release:
            await asyncio.shield(self._release())
        self.core.released()

    async def _release(self) -> None:
        """Give the lease back, so that the next one need not wait until it runs out."""
        try:
            async with within(self._clock, self.core.options.renew_seconds, self._lock.description):
                while True:
                    found = await self._lock.read()
                    record = None if found is None else self.core.release(found, self._clock.now())
                    if record is None:
                        return
                    try:
                        await self._lock.update(record)
                    except Conflict:
                        continue
                    _log.info("gave the lease back", lock=self._lock.description)
                    return
        except (ApiStatus, OSError) as error:
            _log.warning("lease not given back; it runs out", lock=self._lock.description, error=repr(error))


def _record(spec: LeaseSpec) -> LeaseRecord:
    return LeaseRecord(
        spec.holder_identity or "",
        spec.lease_duration_seconds or 0,
        times.parse_micros(spec.acquire_time) if spec.acquire_time else None,
        times.parse_micros(spec.renew_time) if spec.renew_time else None,
        spec.lease_transitions or 0,
    )


def _spec(spec: LeaseSpec, record: LeaseRecord) -> LeaseSpec:
    return replaced(
        spec,
        holder_identity=record.holder,
        lease_duration_seconds=record.duration_seconds,
        acquire_time=None if record.acquire_time is None else times.format_micros(record.acquire_time),
        renew_time=None if record.renew_time is None else times.format_micros(record.renew_time),
        lease_transitions=record.transitions,
    )
