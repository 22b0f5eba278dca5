"""The one writer pipeline: propose → log thread with group commit → bounded commit queue → apply.

The event loop frames proposals and applies what is durable. One thread writes: it takes everything that waits, up to
the free places of the commit queue, writes it with one call and one sync, and tells the loop. So as long as a sync
takes, proposals gather for the next one, and the log waits for apply only when the commit queue is full.

Failures of the disk end here: a full one refuses what waits and goes on (`NoSpace`); a failed write or sync refuses
everything from then on, for what a failed sync has lost cannot be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pilothouse.store import commands
from pilothouse.store.commands import Command
from pilothouse.store.errors import NoSpace, RequestTooLarge, StoreError, TooManyRequests, Unavailable
from pilothouse.store.metrics import StoreMetrics
from pilothouse.store.wal import LogFull, LogWriter, frame

__all__ = ["Pipeline", "Proposal"]

_log = logging.getLogger(__name__)

_BATCH_BYTES = 8 * 1024 * 1024
_APPLY_SLICE = 256
_WORK = True
_STOP = False


class Proposal(NamedTuple):
    """A command on its way: framed for the log, with the future of who waits for it."""

    position: int
    command: Command
    frame: bytes
    chain: int
    future: asyncio.Future[Any]


class Pipeline:
    """Makes commands durable in order and hands them to `apply(index, command, future)` on the event loop.

    `commit_queue` bounds the commands that are durable but not applied, `proposals` those that wait for the log,
    `waiting_bytes` the bytes of both.
    """

    def __init__(
        self,
        writer: LogWriter,
        apply: Callable[[list[Proposal]], None],
        metrics: StoreMetrics,
        *,
        commit_queue: int = 1024,
        proposals: int = 65_536,
        waiting_bytes: int = 256 * 1024 * 1024,
        max_request_bytes: int = 0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._apply = apply
        self._metrics = metrics
        self._commit_limit = commit_queue
        self._proposal_limit = proposals
        self._byte_limit = waiting_bytes
        self.bytes_waiting = 0
        """Bytes of the commands proposed and not yet applied or refused."""
        self._max_request_bytes = max_request_bytes
        self._pending: deque[Proposal] = deque()
        self._committed: deque[Proposal] = deque()
        self._index = writer.last_index
        self._chain = writer.chain
        self._salt = writer.salt
        self._applied_index = writer.last_index
        self._taken = 0
        self._done = 0
        self._kick_due = False
        self._awake = False
        self._paused = False
        self._refusal: StoreError | None = None
        self._defect: StoreError | None = None
        self._inbox: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._room = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pilothouse-log", daemon=True)
        self._thread.start()

    @property
    def refusal(self) -> StoreError | None:
        """Why nothing can be proposed any more, if so."""
        return self._refusal

    @property
    def uncommitted(self) -> int:
        """The number of commands taken by the log thread and not yet applied."""
        return self._taken - self._done

    def propose(self, command: Command) -> asyncio.Future[Any]:
        """Put a command on its way; the future gets its answer once it is durable and applied."""
        if self._refusal is not None:
            raise self._refusal
        if len(self._pending) >= self._proposal_limit or self.bytes_waiting > self._byte_limit:
            raise TooManyRequests(
                f"{TooManyRequests.text}: {len(self._pending)} with {self.bytes_waiting} bytes wait for the log; "
                "try again later"
            )
        payload = commands.encode(command)
        if 0 < self._max_request_bytes < len(payload):
            raise RequestTooLarge(
                f"{RequestTooLarge.text}: {len(payload)} bytes where {self._max_request_bytes} are allowed"
            )
        index = self._index = self._index + 1
        framed, self._chain = frame(payload, index, self._chain, self._applied_index, self._salt)
        self.bytes_waiting += len(framed)
        future = self._loop.create_future()
        self._pending.append(Proposal(index, command, framed, self._chain, future))
        if not self._kick_due and not self._awake:
            # Once an iteration of the loop, so that all who propose in it share a sync.
            self._kick_due = True
            self._loop.call_soon(self._kick)
        return future

    async def close(self) -> None:
        """Write and apply what waits, then stop the thread."""
        if self._refusal is None:
            self._refusal = Unavailable()
        self._inbox.put(_WORK)
        self._inbox.put(_STOP)
        await self._loop.run_in_executor(None, self._thread.join)
        while self._committed:
            self._drain()
        self._refuse(list(self._pending), Unavailable())
        self._pending.clear()

    def _kick(self) -> None:
        self._kick_due = False
        if not self._awake:
            self._awake = True
            self._inbox.put(_WORK)

    # The log thread

    def _run(self) -> None:
        while self._inbox.get():
            self._write_all()

    def _write_all(self) -> None:
        while not self._paused:
            self._awake = False
            if not self._pending:
                return
            self._awake = True
            free = self._commit_limit - (self._taken - self._done)
            if free <= 0:
                self._room.clear()
                if self._commit_limit <= self._taken - self._done and not self._paused:
                    self._room.wait()
                continue
            batch = self._take(free)
            if not batch:
                continue
            try:
                self._writer.append(
                    [proposal.frame for proposal in batch],
                    batch[0].position,
                    batch[-1].position,
                    self._writer.chain,
                    batch[-1].chain,
                )
            except LogFull as error:
                self._give_up(batch, NoSpace(f"{NoSpace.text}: {error}"), final=False)
            except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must be told
                self._give_up(batch, _failure(error), final=True)
            else:
                self._committed.extend(batch)
                self._loop.call_soon_threadsafe(self._drain)
                self._metrics.batch.observe(len(batch))
                self._metrics.sync.observe(self._writer.last_sync_seconds)

    def _take(self, free: int) -> list[Proposal]:
        pending = self._pending
        batch: list[Proposal] = []
        size = 0
        # The loop empties the queue under our hands where apply has failed.
        with contextlib.suppress(IndexError):
            while len(batch) < free and size < _BATCH_BYTES:
                proposal = pending.popleft()
                size += len(proposal.frame)
                batch.append(proposal)
        self._taken += len(batch)
        return batch

    def _give_up(self, batch: list[Proposal], error: StoreError, *, final: bool) -> None:
        self._paused = True
        self._loop.call_soon_threadsafe(self._refuse_all, batch, error, final)

    # The event loop

    def _drain(self) -> None:
        committed = self._committed
        batch = [committed.popleft() for _ in range(min(len(committed), _APPLY_SLICE))]
        if not batch:
            return
        if self._defect is not None:
            self._refuse([*batch, *_emptied(committed)], self._defect)
            return
        try:
            self._apply(batch)
        except Exception as error:  # noqa: BLE001  # a defect, told to all who wait and to the log
            self._break(batch, error)
            return
        self._applied_index = batch[-1].position
        self._done += len(batch)
        self._metrics.applied.inc(len(batch))
        self.bytes_waiting -= sum([len(proposal.frame) for proposal in batch])
        self._room.set()
        if committed:
            self._loop.call_soon(self._drain)

    def _break(self, batch: list[Proposal], error: Exception) -> None:
        """Stop for good: the state may be half changed. What is durable is whole, so the next start brings it back."""
        _log.critical("applying the log failed", exc_info=error)
        self._refusal = self._defect = _defect(error)
        self._paused = True
        self._room.set()
        self._refuse([*batch, *_emptied(self._committed), *_emptied(self._pending)], self._defect)

    def _refuse_all(self, batch: list[Proposal], error: StoreError, final: bool) -> None:
        while self._committed:
            self._drain()
        if final:
            self._refusal = error
            _log.critical("%s", error.message)
        self._done += len(batch)
        waiting = list(self._pending)
        self._metrics.refused.labels("failed" if final else "no room").inc(len(batch) + len(waiting))
        self._pending.clear()
        self._index = self._writer.last_index
        self._chain = self._writer.chain
        self._paused = self._awake = final or self._defect is not None
        self._refuse([*batch, *waiting], error)

    def _refuse(self, proposals: list[Proposal], error: StoreError) -> None:
        for proposal in proposals:
            self.bytes_waiting -= len(proposal.frame)
            if not proposal.future.done():
                proposal.future.set_exception(error)


def _emptied(queue: deque[Proposal]) -> list[Proposal]:
    """Take everything out of a queue that the log thread may be filling or emptying; each one goes to one of us."""
    taken: list[Proposal] = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(queue.popleft())
    return taken


def _defect(error: Exception) -> Unavailable:
    return Unavailable(
        f"etcdserver: a durable write could not be applied ({type(error).__name__}: {error}), which is a defect; no "
        "writes are accepted until the store is started again, and reads may be wrong; please report it"
    )


def _failure(error: Exception) -> Unavailable:
    return Unavailable(
        f"etcdserver: the write-ahead log failed ({error}); no writes are accepted until the store is started again, "
        "reads go on; whether the refused writes survived is known only then"
    )
