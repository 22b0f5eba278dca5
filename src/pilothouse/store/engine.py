"""The embedded engine: the state machine, its durable log, checkpoints and watchers as one `Store`.

One event loop owns it. Reads answer at once from memory at one revision and never wait for writes; a write answers
when it is durable and applied. `submit` and `read` are the same operations without a coroutine, for servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

from pilothouse import __version__ as version
from pilothouse.store.checkpointer import Checkpointer
from pilothouse.store.commands import Command, Compact, GrantLease, RevokeLease, SetAlarm
from pilothouse.store.errors import (
    Compacted,
    CorruptAlarm,
    FutureRevision,
    InvalidRequest,
    LeaseNotFound,
    NoSpace,
    RequestTooLarge,
    StoreError,
)
from pilothouse.store.hashing import crc_of, hashable
from pilothouse.store.keyspace import VERSION_OVERHEAD, KeySpace
from pilothouse.store.machine import StateMachine
from pilothouse.store.metrics import StoreMetrics
from pilothouse.store.model import (
    Alarm,
    AlarmAction,
    AlarmType,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVResponse,
    KeyValue,
    LeaseGrantResponse,
    LeaseTimeToLiveResponse,
    Member,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Status,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)
from pilothouse.store.options import StoreOptions
from pilothouse.store.pipeline import Pipeline, Proposal
from pilothouse.store.ranges import answer, is_plain
from pilothouse.store.rates import WriteRates
from pilothouse.store.recovery import Recovered, recover
from pilothouse.store.spool import spool_snapshot
from pilothouse.store.upkeep import Upkeep
from pilothouse.store.validation import check_delete, check_put, check_range, check_txn, writes
from pilothouse.store.watchhub import WatchHub
from pilothouse.store.watching import EmbeddedWatch

__all__ = ["EmbeddedStore", "StoreOptions"]

_log = logging.getLogger(__name__)

_AT_ONCE = 10_000
_CHUNKS_AT_ONCE = 5
_PUMP = 2_000


class EmbeddedStore:
    """A store in this process. Make one with `await EmbeddedStore.open(options)`, end it with `close`."""

    def __init__(self, options: StoreOptions, recovered: Recovered) -> None:
        self.options = options
        self.machine: StateMachine = recovered.machine
        self.keys: KeySpace = recovered.machine.keys
        self.member_id = recovered.directory.identity.member_id
        self.cluster_id = recovered.directory.identity.cluster_id
        self.client_urls: tuple[str, ...] = ()
        self._recovered = recovered
        self._loop = asyncio.get_running_loop()
        self._rates = WriteRates()
        self._applied = recovered.writer.last_index
        self._closing: asyncio.Task[None] | None = None
        self._alarming: asyncio.Future[Any] | None = None
        self.hub = WatchHub(
            self.keys, buffer_events=options.watch_buffer_events, buffer_bytes=options.watch_buffer_bytes
        )
        self.hub.on_behind = self._pump_soon
        metrics = StoreMetrics(options.metrics)
        self._pipeline = Pipeline(
            recovered.writer,
            self._apply,
            metrics,
            commit_queue=options.commit_queue,
            proposals=options.proposals,
            max_request_bytes=2 * options.max_request_bytes,
        )
        self.checkpointer = Checkpointer(
            self.machine,
            recovered.checkpoints,
            lambda: self._applied,
            self._release,
            metrics,
            options.snapshot_entries,
        )
        self._upkeep = Upkeep(self)

    @classmethod
    async def open(cls, options: StoreOptions) -> Self:
        """Recover what is in the data directory, or make a new one, and start.

        Raises a `DataDirError` where the directory is in use, damaged, newer or not ours to use; nothing is changed
        then.
        """
        recovering = asyncio.ensure_future(asyncio.to_thread(recover, options))
        try:
            recovered = await asyncio.shield(recovering)
        except asyncio.CancelledError:
            # The thread cannot be stopped, and what it opens nobody would close.
            recovering.add_done_callback(_close_recovered)
            raise
        store = cls(options, recovered)
        store._upkeep.start()
        return store

    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        # Whoever gives up waiting, or asks again, does not keep the directory from being let go.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._upkeep.stop()
        try:
            await self._pipeline.close()
            await self.checkpointer.close()
        finally:
            self.hub.cancel_all("etcdserver: server stopped")
            await asyncio.to_thread(self._recovered.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Reads

    def read(self, request: RangeRequest) -> RangeResponse:
        """Answer a range at once, however large; `range` leaves the event loop free in between."""
        check_range(request)
        self._require_sound()
        return self.keys.range(request)

    def _require_sound(self) -> None:
        if self.machine.alarms and self.machine.has_alarm(AlarmType.CORRUPT):
            raise CorruptAlarm

    async def range(self, request: RangeRequest) -> RangeResponse:
        return await self._range_in_pieces(request) if self.is_large(request) else self.read(request)

    def is_large(self, request: RangeRequest) -> bool:
        """Whether `range` would go in pieces, where `read` would hold the event loop up."""
        return bool(request.range_end) and self.keys.effort(request) > _AT_ONCE

    async def _range_in_pieces(self, request: RangeRequest) -> RangeResponse:
        check_range(request)
        self._require_sound()
        now = self.keys.revision
        revision = self.keys.check_revision(request.revision)
        wanted = request.limit + 1 if request.limit > 0 and is_plain(request) else sys.maxsize
        kvs: list[KeyValue] = []
        count = 0
        self.keys.pin()
        try:
            for number, chunk in enumerate(self.keys.chunks_at(request.key, request.range_end, revision), 1):
                count += len(chunk)
                if not request.count_only and len(kvs) < wanted:
                    kvs += chunk
                if number % _CHUNKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        finally:
            self.keys.unpin()
        return answer(request, kvs, count, now)

    # Writes

    def submit(self, request: PutRequest | DeleteRangeRequest | TxnRequest) -> asyncio.Future[Any]:
        """Check a write and put it on its way; the future gets its response. A transaction of reads answers at once."""
        if isinstance(request, PutRequest):
            check_put(request)
            self._admit(len(request.key) + len(request.value))
        elif isinstance(request, TxnRequest):
            check_txn(request, self.options.max_txn_ops)
            puts, deletes = writes(request)
            if not puts and not deletes:
                self._require_sound()
                future: asyncio.Future[TxnResponse] = self._loop.create_future()
                future.set_result(self.machine.read(request))
                return future
            if puts:
                self._admit(_put_bytes(request))
        else:
            check_delete(request)
        return self._pipeline.propose(request)

    async def put(self, request: PutRequest) -> PutResponse:
        response: PutResponse = await self.submit(request)
        return response

    async def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response: DeleteRangeResponse = await self.submit(request)
        return response

    async def txn(self, request: TxnRequest) -> TxnResponse:
        response: TxnResponse = await self.submit(request)
        return response

    async def compact(self, revision: int, *, physical: bool = False) -> int:
        current: int = await self._pipeline.propose(Compact(revision))
        if physical:
            await self.checkpointer.freed()
        return current

    def propose(self, command: Command) -> asyncio.Future[Any]:
        """Put a command on its way that needs no check of its own."""
        return self._pipeline.propose(command)

    def _admit(self, size: int) -> None:
        if size > self.options.max_request_bytes:
            raise RequestTooLarge(
                f"{RequestTooLarge.text}: {size} bytes where {self.options.max_request_bytes} are allowed"
            )
        taken = self.keys.bytes_in_use + self._pipeline.bytes_waiting
        if taken + size + VERSION_OVERHEAD <= self.options.quota_bytes:
            return
        if Alarm(self.member_id, AlarmType.NOSPACE) not in self.machine.alarms:
            self._raise_alarm()
        raise NoSpace

    def _raise_alarm(self) -> None:
        if self._alarming is not None and not self._alarming.done():
            return  # one on its way is enough for all who are refused meanwhile
        # Whoever is refused is told why in any case; the next one tries again.
        with contextlib.suppress(StoreError):
            self._alarming = self._pipeline.propose(SetAlarm(self.member_id, AlarmType.NOSPACE, active=True))
            _ignore(self._alarming)

    # Watches

    def watch(self, request: WatchRequest) -> EmbeddedWatch:
        return EmbeddedWatch(self.hub.watch(request))

    def _pump_soon(self) -> None:
        self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self.hub.pump(_PUMP):
            self._pump_soon()

    # Leases

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        self._admit(0)
        lease_id = lease_id or self.options.ids.int63()
        response: LeaseGrantResponse = await self._pipeline.propose(GrantLease(lease_id, ttl))
        return response

    async def lease_revoke(self, lease_id: int) -> int:
        revision: int = await self._pipeline.propose(RevokeLease(lease_id))
        return revision

    async def lease_keep_alive(self, lease_id: int) -> int:
        try:
            return self.machine.leases.keep_alive(lease_id)
        except LeaseNotFound:
            return 0

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        try:
            left = self.machine.leases.time_to_live(lease_id)
        except LeaseNotFound:
            return LeaseTimeToLiveResponse(self.keys.revision, lease_id, -1, 0)
        return LeaseTimeToLiveResponse(
            self.keys.revision, lease_id, left.remaining, left.granted, left.keys if keys else []
        )

    async def lease_leases(self) -> list[int]:
        return self.machine.leases.ids()

    # Upkeep

    async def status(self) -> Status:
        disk = self._recovered.writer.bytes_on_disk + self._recovered.checkpoints.bytes_on_disk
        errors = [one.alarm.name for one in self.machine.alarms]
        if self._pipeline.refusal is not None:
            errors.append(self._pipeline.refusal.message)
        if self.checkpointer.failure:
            errors.append(self.checkpointer.failure)
        return Status(
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            revision=self.keys.revision,
            compact_revision=max(self.keys.compact_revision, 0),
            raft_index=self._applied + self._pipeline.uncommitted,
            raft_applied_index=self._applied,
            leader=self.member_id,
            version=version,
            db_size=disk,
            db_size_in_use=self.keys.bytes_in_use,
            quota=self.options.quota_bytes,
            keys=len(self.keys),
            watchers=self.hub.watchers,
            leases=len(self.machine.leases),
            errors=tuple(errors),
            advice=self._advice(),
        )

    def _advice(self) -> tuple[str, ...]:
        places, rate, wanted = self.options.commit_queue, self._rates.p99, self._rates.commit_queue
        if not rate:
            return (f"commit queue: {places} places; no whole second with writes measured yet to advise by",)
        verdict = "which is enough" if wanted <= places else f"so raise it to {wanted}"
        measured = f"50 ms of the p99 write rate ({rate} a second over the last 10 minutes) are {wanted}"
        return (f"commit queue: {places} places; {measured}, {verdict}",)

    async def hash_kv(self, revision: int = 0) -> HashKVResponse:
        at = revision or self.keys.revision
        if at > self.keys.revision:
            raise FutureRevision
        compacted = self.keys.compact_revision
        if at < compacted:
            raise Compacted(compact_revision=compacted)
        now = self.keys.revision
        live, old = self.keys.versions()
        chosen = await asyncio.to_thread(lambda: crc_of(hashable(live, old, at, compacted)))
        return HashKVResponse(now, chosen, at, compacted)

    async def alarm(self, action: AlarmAction, alarm: AlarmType = AlarmType.NONE, member_id: int = 0) -> list[Alarm]:
        if action == AlarmAction.GET:
            return [one for one in self.machine.alarms if alarm in {AlarmType.NONE, one.alarm}]
        if alarm == AlarmType.NONE:
            raise InvalidRequest("etcdserver: an alarm to raise or clear must be named: NOSPACE or CORRUPT")
        active = action == AlarmAction.ACTIVATE
        found: list[Alarm] = await self._pipeline.propose(SetAlarm(member_id or self.member_id, alarm, active))
        return found

    async def defragment(self) -> None:
        await self.checkpointer.write(base=True)

    async def snapshot(self) -> AsyncIterator[bytes]:
        async for chunk in spool_snapshot(
            self.machine, lambda: self._applied, self.options.filesystem, self._recovered.directory
        ):
            yield chunk

    async def members(self) -> list[Member]:
        return [Member(self.member_id, self.options.name, (), self.client_urls)]

    # Apply, called by the pipeline on the event loop

    def _apply(self, batch: list[Proposal]) -> None:
        machine, hub, keys = self.machine, self.hub, self.keys
        for proposal in batch:
            future = proposal.future
            try:
                response, events = machine.apply(proposal.command)
            except StoreError as error:
                self._applied = proposal.position
                if not future.done():
                    future.set_exception(error)
                continue
            self._applied = proposal.position
            if events:
                hub.publish(keys.revision, events)
            if not future.done():
                future.set_result(response)
            if type(proposal.command) in _UPKEEP:
                self._upkeep.after(proposal.command)
        self._rates.add(len(batch), self.options.clock.monotonic())
        self.checkpointer.applied()

    def _release(self, index: int) -> None:
        writer = self._recovered.writer
        try:
            writer.release(index)
            writer.prepare_next()
        except OSError:
            _log.warning("the log could not be tidied; it is whole, and the next checkpoint tries again", exc_info=True)


_UPKEEP = frozenset({Compact, GrantLease})


def _put_bytes(request: TxnRequest) -> int:
    total = 0
    for branch in (request.success, request.failure):
        for op in branch:
            if isinstance(op, PutRequest):
                total += len(op.key) + len(op.value)
            elif isinstance(op, TxnRequest):
                total += _put_bytes(op)
    return total


def _close_recovered(recovering: asyncio.Future[Recovered]) -> None:
    if not recovering.cancelled() and recovering.exception() is None:
        recovering.result().close()


def _ignore(future: asyncio.Future[Any]) -> None:
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
