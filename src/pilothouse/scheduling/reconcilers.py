"""The scheduler at work: it follows a cluster by a manager's caches and writes what it decides.

Decisions do not wait for what is written: many bindings are under way at once, up to a limit at which the next decision
has to wait. What could not be written goes back to the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from pilothouse.client import ClientEventSink, DeletedFinalStateUnknown, EventBroadcaster
from pilothouse.client.listener import Listener
from pilothouse.client.metrics import register
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    Resource,
    Service,
    StatefulSet,
    StorageClass,
    VolumeAttachment,
)
from pilothouse.operator import Manager

from .config_args import VolumeBindingArgs
from .configuration import Configuration
from .decisions import Decision
from .metrics import Figures
from .scheduler import Scheduler
from .writing import Writer

__all__ = ["KINDS", "PodScheduler"]

KINDS: Final[tuple[type[Resource], ...]] = (
    Namespace,
    Service,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
    PodDisruptionBudget,
    StorageClass,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    VolumeAttachment,
    PersistentVolume,
    PersistentVolumeClaim,
    Node,
    Pod,
)
"""What is followed. Pods come last, so that all that they refer to is there when the first is tried."""
_UNDER_WAY: Final = 256
_EVENTS: Final = 25_000
_EVENT_WRITERS: Final = 2
"""Events that may wait for each writer. Those of one pod have one writer, which puts like ones together."""
_FLUSH_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 1.0
_AT_ONCE: Final = 32
"""Decisions made before others get a turn of the event loop."""

_log = get_logger("pilothouse.scheduling.reconcilers")


class PodScheduler:
    """A scheduler that runs with a manager: it works while the manager leads, on the manager's caches.

    Make it before the manager runs. configuration: as `configuration.load` read it. seed: of the choice among equal
    nodes. under_way: writes at once; with more, decisions wait.
    """

    name: Final = "scheduler"

    def __init__(
        self,
        manager: Manager,
        configuration: Configuration | None = None,
        *,
        seed: int | None = None,
        under_way: int = _UNDER_WAY,
    ) -> None:
        self.scheduler: Final = Scheduler(configuration, clock=manager.clock, seed=seed)
        self._clock = manager.clock
        self._informers = {kind: manager.informer(kind) for kind in KINDS}
        profile = next(iter(self.scheduler.profiles))
        args = (configuration or Configuration()).profiles[0].args.get("VolumeBinding") or VolumeBindingArgs()
        # Of its own: a burst of bindings makes more events than a manager's controllers together may have waiting.
        events = [
            EventBroadcaster(
                ClientEventSink(manager.client), max_queued=_EVENTS, clock=manager.clock, metrics=manager.metrics
            )
            for _ in range(_EVENT_WRITERS)
        ]
        self._writer = Writer(
            self.scheduler,
            manager.client,
            [one.recorder(profile) for one in events],
            _CachedPods(self._informers[Pod].indexer.get),
            manager.clock,
            volume_seconds=args.bind_timeout_seconds,
        )
        self._events = events
        self._limit = asyncio.Semaphore(under_way)
        self._wake = asyncio.Event()
        self._listeners: list[Listener[Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self.figures: Final = Figures(profile, self.scheduler.queue.counts)
        register(self.figures, manager.metrics)
        # It is started and stopped as controllers are, with the lease; it reconciles no single objects.
        manager.add(cast("Any", self))

    def start(self) -> None:
        """Begin to follow the cluster and to decide, in tasks of the running loop."""
        for kind, informer in self._informers.items():
            self._listeners.append(
                informer.add_handler(
                    on_add=self._added,
                    on_update=self._updated,
                    on_delete=self._deleted,
                    name=f"scheduler {kind.plural}",
                )
            )
        for broadcaster in self._events:
            broadcaster.start()
        self._loop_task = asyncio.get_running_loop().create_task(self._run(), name="scheduler")

    async def stop(self, seconds: float) -> None:
        """Decide no more; what is under way has so long to be written."""
        for listener in self._listeners:
            listener.remove()
        self._listeners.clear()
        task, self._loop_task = self._loop_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=max(seconds, 0.0))
            for one in late:
                one.cancel()
            if late:
                await asyncio.wait(late)
        await asyncio.gather(*(broadcaster.stop(min(seconds, _FLUSH_SECONDS)) for broadcaster in self._events))

    @property
    def bound(self) -> int:
        """How many pods were bound."""
        return self._writer.bound

    def unconverged(self) -> list[str]:
        """Give what does not come to an end: of the scheduler nothing, pods that do not fit are no fault of it."""
        return []

    async def _run(self) -> None:
        for listener in [*self._listeners]:
            await listener.wait_synced()
        while True:
            self._wake.clear()
            try:
                self.scheduler.tick()
                await self._decide()
            except Exception as error:  # noqa: BLE001  a fault is logged and tried again: pods must not wait for a person
                _log.error("scheduling failed", exc_info=error)
                await self._clock.sleep(_PAUSE_SECONDS)
                continue
            await self._sleep()

    async def _decide(self) -> None:
        made = 0
        while (decision := self._next()) is not None:
            await self._limit.acquire()
            task = asyncio.get_running_loop().create_task(self._write(decision))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            made += 1
            if made % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _next(self) -> Decision | None:
        begun = self._clock.monotonic()
        decision = self.scheduler.schedule()
        if decision is not None:
            self.figures.decided(decision, self._clock.monotonic() - begun)
        return decision

    async def _write(self, decision: Decision) -> None:
        try:
            await self._writer.write(decision)
        except Exception as error:  # noqa: BLE001  one decision that cannot be written must not end all others
            meta = decision.pod.metadata
            _log.warning("decision_not_written", pod=f"{meta.namespace}/{meta.name}", error=str(error))
        finally:
            self._limit.release()
            self._wake.set()

    async def _sleep(self) -> None:
        seconds = self.scheduler.next_tick()
        timer = None if seconds is None else self._clock.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _added(self, found: Resource, _: bool) -> None:
        self.scheduler.upsert(found)
        self._changed(found)

    def _updated(self, old: Resource, new: Resource) -> None:
        if old.metadata.uid != new.metadata.uid:
            # It was deleted and made again while nobody looked.
            self.scheduler.remove(old)
        self.scheduler.upsert(new)
        self._changed(new)

    def _deleted(self, gone: Resource | DeletedFinalStateUnknown[Any]) -> None:
        found = gone.object if isinstance(gone, DeletedFinalStateUnknown) else gone
        if found is not None:
            self.scheduler.remove(found)
            self._changed(found)

    def _changed(self, found: Resource) -> None:
        if isinstance(found, PersistentVolumeClaim):
            self._writer.storage_changed()
        self._wake.set()


class _CachedPods:
    """Pods as the cache has them."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get

    def get(self, key: str) -> Pod | None:
        found: Pod | None = self._get(key)
        return found
