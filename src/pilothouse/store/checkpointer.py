"""When to write a checkpoint, of which kind, and what may be forgotten after it.

Every `snapshot_entries` applied commands the changes since the last checkpoint go to disk as a delta table, which
costs what was written and not what is held. When the deltas outgrow the base, or are very many, a new base replaces
all of them, so the bytes written stay proportional to the bytes changed. The log is released up to a checkpoint only
once it is safe on disk, and compacted history is swept only up to it, for the next delta is made from that history.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from pilothouse.store import images
from pilothouse.store.changelog import Change
from pilothouse.store.checkpoints import Checkpoints, Kind, TableFile
from pilothouse.store.errors import StoreError, Unavailable
from pilothouse.store.machine import StateMachine
from pilothouse.store.metrics import StoreMetrics

__all__ = ["Checkpointer"]

_log = logging.getLogger(__name__)

_SMALL_BASE = 16 * 1024 * 1024
_MOST_DELTAS = 1000
"""However small they are: a start opens each of them, and each checkpoint writes the list of them anew."""
_SWEEP = 500
_REST = 0.0001


class Checkpointer:
    """Writes checkpoints of `machine` beside its work; `position` gives the last log index applied.

    `release(index)` is called in a thread when everything up to that log index is safe in checkpoints.
    """

    def __init__(
        self,
        machine: StateMachine,
        checkpoints: Checkpoints,
        position: Callable[[], int],
        release: Callable[[int], object],
        metrics: StoreMetrics,
        every: int,
    ) -> None:
        self._machine = machine
        self._checkpoints = checkpoints
        self._position = position
        self._release = release
        self._metrics = metrics
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.index = checkpoints.index
        self.revision = checkpoints.revision
        self.failure = ""
        self.written = 0
        self._closed = False
        machine.keys.on_unpin = self._unpinned

    def applied(self) -> None:
        """Start a checkpoint if enough has been applied; cheap, called after every batch."""
        if self._position() - self.index >= self._every and self._task is None:
            self._start(base=False)

    async def write(self, *, base: bool = False) -> None:
        """Write a checkpoint of what is applied now and wait for it; raise if it cannot be written or after `close`."""
        while self._task is not None:
            await asyncio.wait({self._task})
        if self._closed:  # the directory may be another process's by now
            raise Unavailable
        task = self._start(base=base)
        await asyncio.wait({task})
        task.result()

    def compacted(self) -> None:
        """Have space freed behind the line of a compaction."""
        if self._sweeping is None and not self._closed:
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep_all())
            self._sweeping.add_done_callback(self._swept)

    async def freed(self) -> None:
        """Wait until what the last compaction gave up is gone."""
        while self._sweeping is not None:
            await asyncio.wait({self._sweeping})

    async def close(self) -> None:
        """Let the running checkpoint end, and stop."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        while running := {task for task in (self._sweeping, self._task) if task is not None}:
            await asyncio.wait(running)

    def _start(self, *, base: bool) -> asyncio.Task[None]:
        task = self._task = asyncio.get_running_loop().create_task(self._write(base=base))
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = f"the checkpoint failed ({error}); the log is kept, and the next one is tried later"
            self._metrics.checkpoint_failures.inc()
            _log.error("%s", self.failure, exc_info=None if isinstance(error, StoreError) else error)
            # Not at every batch while the disk is full: after another full interval.
            self.index = self._position()

    def _unpinned(self) -> None:
        if self._machine.keys.sweepable(self.revision):
            self.compacted()

    def _swept(self, task: asyncio.Task[None]) -> None:
        self._sweeping = None
        if not task.cancelled() and task.exception() is not None:
            _log.warning("compacted history stays until the next checkpoint succeeds")

    async def _sweep_all(self) -> None:
        keys = self._machine.keys
        if self.revision < keys.compact_revision:
            await self.write()
        # No poll: the next slice, after whoever waits.
        while keys.sweep(self.revision, _SWEEP):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def _write(self, *, base: bool) -> None:
        kind: Kind = "base" if base or not self._checkpoints.tables or self._deltas_outgrow() else "delta"
        with self._metrics.checkpoint.labels(kind).time():
            table = await asyncio.to_thread(self._checkpoints.begin, kind)
            # Nothing may be awaited between here and the pin of the base or the copy of the delta's changes.
            meta = images.capture(self._machine, self._position())
            if kind == "base":
                await self._fill_base(table, meta)
            else:
                changes = self._machine.keys.changes_since(self.revision + 1, meta.revision - self.revision)
                await asyncio.to_thread(_fill_delta, table, meta, changes)
        self.index, self.revision, self.failure = meta.index, meta.revision, ""
        self.written += 1
        await asyncio.to_thread(self._release, meta.index)
        if self._machine.keys.sweepable(self.revision):
            self.compacted()

    def _deltas_outgrow(self) -> bool:
        base, *deltas = self._checkpoints.tables
        return len(deltas) >= _MOST_DELTAS or sum(delta.bytes for delta in deltas) > max(base.bytes, _SMALL_BASE)

    async def _fill_base(self, table: TableFile, meta: images.Meta) -> None:
        async def write(blocks: Iterable[tuple[int, bytes]]) -> None:
            await asyncio.to_thread(_store, table, blocks)

        try:
            await images.write_base(self._machine, meta, write)
            await asyncio.to_thread(table.commit, meta.index, meta.revision)
        except BaseException:
            await asyncio.to_thread(table.abort)
            raise


def _store(table: TableFile, blocks: Iterable[tuple[int, bytes]]) -> None:
    for kind, payload in blocks:
        table.write(kind, payload)
        # Encoding holds the interpreter. A short rest after each block lets those who wait for it go first, who
        # would otherwise wait for the interpreter's whole switch interval (5 ms) again and again.
        time.sleep(_REST)


def _fill_delta(table: TableFile, meta: images.Meta, changes: list[Change]) -> None:
    try:
        _store(table, images.delta_blocks(meta, changes))
        table.commit(meta.index, meta.revision)
    except BaseException:
        table.abort()
        raise
