"""The shared informer: one watch and one cache of a resource for all who want to know of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from pilothouse.client.collector import spare_collector
from pilothouse.client.deltaqueue import BATCH, Delta, DeltaQueue, Transform
from pilothouse.client.indexer import Indexer, IndexFunction, Lister
from pilothouse.client.informer_figures import informer_samples
from pilothouse.client.informer_options import InformerOptions, Problem
from pilothouse.client.listener import ADD, DELETE, UPDATE, EventHandler, Handlers, Listener, Notification
from pilothouse.client.listwatch import ListerWatcher, PackingSource, WatchEvent
from pilothouse.client.metrics import Sample, register
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of, resource_version_of
from pilothouse.client.packed import Packed
from pilothouse.client.reflector import Reflector
from pilothouse.client.reflector_core import ReflectorCore
from pilothouse.client.shelf import Shelf
from pilothouse.client.tidying import Tidier
from pilothouse.foundation.clock import Clock, SystemClock, Timer
from pilothouse.foundation.logs import get_logger

if TYPE_CHECKING:
    from pilothouse.foundation.metrics import Metrics

__all__ = ["Informer", "InformerOptions", "Problem"]

T = TypeVar("T")

_SLICE: Final = 500
"""Changes worked off before others get a turn of the event loop."""
_MANY: Final = 1_000
"""Objects from which on looking at them again and again costs more than it brings."""
_SKIPS_A_RECORD: Final = 100
"""Skipped objects for one record in the log; all are counted."""
_MIN_RESYNC_SECONDS: Final = 1.0
_END_SECONDS: Final = 5.0
"""For what handlers do when they are cancelled; it is real time, whatever the clock."""

_log = get_logger("pilothouse.client.informer")


class Informer(Generic[T]):
    """A cache that follows a resource, and handlers that are told of each change.

    `async with Informer(...)` or `start` and `stop`; handlers may be added and removed at any time. All of it belongs
    to one event loop. name: for logs and metrics; the lister-watcher's description by default. cluster: where several
    are followed. transform: makes of each object what is cached, such as one without what nobody reads. indexers: by
    name. accepts: whether an object is of the type wanted, where the lister-watcher cannot know.
    """

    def __init__(  # noqa: PLR0913  what it is made of, each with a default
        self,
        lister_watcher: ListerWatcher[T],
        *,
        options: InformerOptions | None = None,
        name: str = "",
        cluster: str = "",
        transform: Transform[T] | None = None,
        indexers: Mapping[str, IndexFunction[T]] | None = None,
        accepts: Callable[[T], bool] | None = None,
        clock: Clock | None = None,
        source: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.name: Final = name or lister_watcher.description
        self.cluster: Final = cluster
        self.options: Final = options or InformerOptions()
        self.indexer: Final[Indexer[T]] = Indexer(indexers, failed=self._index_failed, unreadable=self._unreadable)
        self.handler_failures = 0
        """Of handlers that were removed; those that are here count their own."""
        self.restarts = 0
        """How often the task of the reflector or of a handler had ended and was begun anew."""
        self.user_failures = 0
        """Of transforms and index functions."""
        self.transform: Final = transform
        self._clock = clock or SystemClock()
        self._shelf: Shelf[T] | None = None
        self._tidier: Tidier | None = None
        source_of_all: ListerWatcher[Any] = lister_watcher
        if isinstance(lister_watcher, PackingSource) and accepts is None:
            packing = lister_watcher.packed(self.options.recent_bytes)
            self._shelf, source_of_all = packing.shelf, packing
            self._tidier = Tidier(packing.shelf, self._clock, returns_memory=self.options.tune_collector)
        self._queue: DeltaQueue[Any] = DeltaQueue(
            self.indexer.entries,
            transform=None if transform is None else self._transformed,
            transform_failed=self._transform_failed,
        )
        self._core: ReflectorCore[Any] = ReflectorCore(
            self.name,
            self._queue,
            self.options.reflector,
            source=source,
            accepts=accepts,
            on_skip=self._skipped,
            transformed=None if transform is None else self._queue.transformed,
        )
        self._reflector = Reflector(
            source_of_all,
            self._core,
            self,
            clock=self._clock,
            timeouts=self.options.timeouts,
            pause_collector=self.options.tune_collector,
        )
        self._listeners: list[Listener[T]] = []
        self._has_synced = False
        self._synced = asyncio.Event()
        """That nobody need wait any more: it has synced, or never will."""
        self._task: asyncio.Task[Any] | None = None
        self._started = False
        self._stopped = False
        self._started_at = 0.0
        self._resync_seconds = self.options.resync_seconds
        self._resync_timer: Timer | None = None
        register(self, metrics)

    # Life

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to list and watch, in tasks of the running loop. A second call does nothing.

        Raises RuntimeError for one that was stopped.
        """
        if self._stopped:
            raise RuntimeError(f"informer {self.name}: it was stopped; make a new one")
        if self._started:
            return
        self._started = True
        self._started_at = self._clock.monotonic()
        for listener in self._listeners:
            listener.start()
        self._task = self._follow()
        self._arm_resync()

    async def stop(self) -> None:
        """End watch and handlers at once; the cache stays readable. More than once is fine."""
        self._stopped = True
        self._synced.set()
        if self._resync_timer is not None:
            self._resync_timer.cancel()
        if self._tidier is not None:
            self._tidier.stop()
        tasks = [listener.stop() for listener in self._listeners]
        watcher, self._task = self._task, None
        if watcher is not None:
            watcher.cancel()
        ending = [task for task in (*tasks, watcher) if task is not None and task is not asyncio.current_task()]
        if ending:
            _, left = await asyncio.wait(ending, timeout=_END_SECONDS)
            for task in left:
                _log.error("does not end though it was cancelled", informer=self.name, task=task.get_name())

    @property
    def is_started(self) -> bool:
        """Whether it was started, even if it was stopped since."""
        return self._started

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped

    @property
    def has_synced(self) -> bool:
        """Whether the cache holds all of the first list."""
        return self._has_synced

    @property
    def resource_version(self) -> str:
        """The last version that was seen; empty before the first list."""
        return self._core.resource_version

    @property
    def core(self) -> ReflectorCore[T]:
        """The reflector's state, for who looks into it."""
        return self._core

    async def wait_synced(self) -> None:
        """Wait until the cache holds all of the first list. Raises RuntimeError if it is stopped before."""
        await self._synced.wait()
        if not self._has_synced:
            raise RuntimeError(f"informer {self.name}: it was stopped before its cache was filled")

    # Who reads and who is told

    def lister(self, group: str = "", resource: str = "") -> Lister[T]:
        """Return a reader of the cache; group and resource are what its errors name."""
        return Lister(self.indexer, group, resource or self.name)

    def add_handler(
        self,
        handler: EventHandler[T] | None = None,
        *,
        on_add: Callable[[T, bool], object] | None = None,
        on_update: Callable[[T, T], object] | None = None,
        on_delete: Callable[[T | DeletedFinalStateUnknown[T]], object] | None = None,
        resync_seconds: float | None = None,
        name: str = "",
    ) -> Listener[T]:
        """Tell a handler, or functions, of everything that is there and of each change from now on.

        The result says when the handler has synced, and removes it. resync_seconds: None takes the informer's own.
        Raises RuntimeError for a stopped informer.
        """
        if handler is None:
            handler = Handlers(on_add=on_add, on_update=on_update, on_delete=on_delete)
        return self._add(handler, name or f"{self.name} {_name_of(handler, on_add)}", resync_seconds, packed=False)

    def add_packed_handler(
        self, handler: EventHandler[Any], *, resync_seconds: float | None = None, name: str = ""
    ) -> Listener[T]:
        """Tell a handler as `add_handler` does, but give it `Packed` objects: for who needs keys and heads alone.

        So has a tombstone one. Where objects do not come packed it gets them as they are. Raises RuntimeError for a
        stopped informer.
        """
        return self._add(handler, name or f"{self.name} {_name_of(handler, None)}", resync_seconds, packed=True)

    def _add(self, handler: EventHandler[Any], name: str, resync_seconds: float | None, *, packed: bool) -> Listener[T]:
        if self._stopped:
            raise RuntimeError(f"informer {self.name}: it was stopped, so a handler would never be called")
        wanted = self._resync_of(self.options.resync_seconds if resync_seconds is None else resync_seconds)
        listener: Listener[T] = Listener(
            handler,
            name,
            clock=self._clock,
            resync_seconds=wanted,
            packed=packed,
            unreadable=self._unreadable,
            removed=self._removed,
        )
        self._listeners.append(listener)
        if self._started:
            for key, obj in self.indexer.entries.items():
                listener.add(Notification(ADD, key, None, obj, initial=True))
            if self.has_synced:
                listener.upstream_synced()
            listener.start()
        return listener

    @property
    def listeners(self) -> Sequence[Listener[T]]:
        """The handlers' registrations."""
        return self._listeners

    # The reflector's consumer

    def consume(self) -> None:
        """Work off what the reflector queued, if that is little; the first list is left to `consume_all`."""
        self._queue.process(self._process, BATCH)
        if not self._has_synced:
            self._check_synced()
        elif self._tidier is not None:
            self._tidier.look()

    async def consume_all(self) -> None:
        """Work off all that the reflector queued, letting others have their turns."""
        while self._queue.process(self._process, _SLICE) and len(self._queue):
            await self._clock.sleep(0)
        self._check_synced()

    # Health

    def problems(self) -> list[Problem]:
        """Return what is not well now; empty is healthy. Also begins anew what died."""
        if not self._started or self._stopped:
            return []
        now, found = self._clock.monotonic(), []
        if self._task is None or self._task.done():
            found.append(Problem(self.name, f"its watcher had ended ({_end_of(self._task)}) and was begun anew"))
            self.restarts += 1
            _log.error("the watcher of an informer had ended; beginning anew", informer=self.name)
            self._task = self._follow()
        core = self._core
        alarm, because = self.options.sync_alarm_seconds, f": {core.last_error}" if core.last_error else ""
        if not self.has_synced and now - self._started_at > alarm:
            found.append(Problem(self.name, f"its cache is not filled{because}", now - self._started_at))
        elif not core.is_well(now) and now - core.failing_since > alarm:
            text = f"list and watch fail, {core.failing} times in a row{because}"
            found.append(Problem(self.name, text, now - core.failing_since))
        return found + self._handler_problems()

    def samples(self) -> Iterable[Sample]:
        """Return the informer's figures."""
        handlers = self.handler_failures + sum(listener.failures for listener in self._listeners)
        return informer_samples(
            {"cluster": self.cluster, "resource": self.name},
            self._reflector,
            cached=len(self.indexer),
            unpacked=0 if self._shelf is None else self._shelf.unpacked,
            pending=sum(listener.pending for listener in self._listeners),
            failures={"handler": handlers, "cache_function": self.user_failures, "restarts": self.restarts},
        )

    # Inside

    def _follow(self) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(self._reflector.run(), name=f"informer {self.name}")

    def _check_synced(self) -> None:
        if self._queue.has_synced and not self._has_synced:
            self._has_synced = True
            self._synced.set()
            if self.options.tune_collector and len(self.indexer) >= _MANY:
                spare_collector()
            if self._tidier is not None:
                self._tidier.look()
            for listener in self._listeners:
                listener.upstream_synced()

    def _process(self, deltas: Sequence[Delta], initial: bool) -> None:
        put, remove, tell = self.indexer.put, self.indexer.remove, self._tell
        for kind, key, obj in deltas:
            if kind == "Deleted":
                if remove(key) is not None:
                    tell(Notification(DELETE, key, None, obj))
                continue
            old = put(key, obj)
            if old is None:
                tell(Notification(ADD, key, None, obj, initial))
            elif resource_version_of(old) == resource_version_of(obj):
                self._tell_syncing(Notification(UPDATE, key, old, obj))
            else:
                tell(Notification(UPDATE, key, old, obj))

    def _tell(self, notification: Notification) -> None:
        for listener in self._listeners:
            listener.add(notification)

    def _tell_syncing(self, notification: Notification) -> None:
        for listener in self._listeners:
            if listener.is_syncing:
                listener.add(notification)

    def _removed(self, listener: Listener[T]) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
            self.handler_failures += listener.failures

    def _handler_problems(self) -> list[Problem]:
        found = []
        for listener in self._listeners:
            if listener.is_dead:
                found.append(Problem(self.name, f"the task of handler {listener.name} had ended and was begun anew"))
                self.restarts += 1
                listener.start()
            elif (stuck := listener.stuck_seconds()) > self.options.handler_alarm_seconds:
                text = f"handler {listener.name} does not return; {listener.pending} notifications wait"
                found.append(Problem(self.name, text, stuck))
        return found

    def _resync_of(self, wanted: float) -> float:
        """Return the period that a handler gets: not under a second, nor under the one that the informer looks by."""
        if wanted <= 0:
            return 0.0
        wanted = max(wanted, _MIN_RESYNC_SECONDS)
        if not self._resync_seconds or (wanted < self._resync_seconds and not self._started):
            self._resync_seconds = wanted
            if self._started:
                self._arm_resync()
        return max(wanted, self._resync_seconds)

    def _arm_resync(self) -> None:
        if self._resync_seconds and not self._stopped:
            self._resync_timer = self._clock.call_later(self._resync_seconds, self._resync)

    def _resync(self) -> None:
        now = self._clock.monotonic()
        due = [listener.should_resync(now) for listener in self._listeners]
        if any(due) and self.has_synced:
            self._queue.resync()
            self._pump()
        self._arm_resync()

    def _pump(self) -> None:
        """Work off what a resync queued, a slice a turn."""
        self._queue.process(self._process, _SLICE)
        if len(self._queue) and not self._stopped:
            self._clock.call_later(0, self._pump)

    def _transformed(self, obj: Any) -> Any:
        assert self.transform is not None  # noqa: S101  it is not asked for otherwise
        if type(obj) is not Packed or self._shelf is None:
            return self.transform(obj)
        return self._shelf.changed(obj, self.transform)

    def _skipped(self, event: WatchEvent[T], error: Exception | None) -> None:
        try:
            key = "" if event.object is None else key_of(event.object)
        except ValueError:
            key = ""
        self._tell_skipped(key, str(error) if error is not None else f"an object of type {type(event.object).__name__}")

    def _unreadable(self, key: str, error: Exception) -> None:
        self._core.counts.skipped += 1
        self._tell_skipped(key, str(error))

    def _tell_skipped(self, key: str, reason: str) -> None:
        if self._core.counts.skipped % _SKIPS_A_RECORD != 1:
            return
        _log.error(
            "object skipped: it does not fit",
            informer=self.name,
            object_key=key,
            reason=reason,
            skipped=self._core.counts.skipped,
        )

    def _transform_failed(self, key: str, error: Exception) -> None:
        self.user_failures += 1
        _log.error("transform failed; cached as it came", informer=self.name, object_key=key, error=repr(error))

    def _index_failed(self, index: str, key: str, error: Exception) -> None:
        self.user_failures += 1
        _log.error("index function failed", informer=self.name, index=index, object_key=key, error=repr(error))


def _end_of(task: asyncio.Task[Any] | None) -> str:
    if task is None or task.cancelled():
        return "cancelled from outside"
    return repr(task.exception())


def _name_of(handler: object, on_add: object) -> str:
    function = handler if on_add is None else on_add
    return str(getattr(function, "__qualname__", type(function).__name__))
