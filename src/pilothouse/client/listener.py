"""One handler of an informer: its own queue of notifications, in order, that never holds up the others."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from pilothouse.client.deadline import is_being_cancelled
from pilothouse.client.errors import BadAnswer
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.packed import Packed, unpacked
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger

__all__ = [
    "ADD",
    "DELETE",
    "UPDATE",
    "EventHandler",
    "FilteringHandler",
    "Handlers",
    "Listener",
    "Notification",
    "merge",
]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

ADD: Final = 0
UPDATE: Final = 1
DELETE: Final = 2

BOUND: Final = 10_000
"""Notifications that wait in full; beyond, those of one object are merged."""
CRASH_PAUSE_SECONDS: Final = 1.0
_AT_ONCE: Final = 32
"""Notifications handled before others get a turn of the event loop."""

_log = get_logger("pilothouse.client.informer")


class EventHandler(Protocol[T_contra]):
    """Is told what happens to the objects of an informer; its methods may be coroutines. Nobody changes the objects."""

    def on_add(self, obj: T_contra, is_in_initial_list: bool, /) -> Awaitable[object] | object:
        """Take an object that is new, or was there when the handler came."""

    def on_update(self, old: T_contra, new: T_contra, /) -> Awaitable[object] | object:
        """Take a change; both are the same for a resync. Another UID is another object of the same name."""

    def on_delete(self, obj: T_contra | DeletedFinalStateUnknown[T_contra], /) -> Awaitable[object] | object:
        """Take a deletion: the last state, or a tombstone where the event was missed."""


class Handlers(Generic[T]):
    """Functions as an event handler; those not given are not called."""

    __slots__ = ("on_add", "on_delete", "on_update")

    def __init__(
        self,
        *,
        on_add: Callable[[T, bool], object] | None = None,
        on_update: Callable[[T, T], object] | None = None,
        on_delete: Callable[[T | DeletedFinalStateUnknown[T]], object] | None = None,
    ) -> None:
        self.on_add: Any = on_add or _nothing
        self.on_update: Any = on_update or _nothing
        self.on_delete: Any = on_delete or _nothing


class FilteringHandler(Generic[T]):
    """Passes on what a filter takes; an object that comes to pass or ceases to is added or deleted."""

    __slots__ = ("_handler", "_takes")

    def __init__(self, takes: Callable[[T], bool], handler: EventHandler[T]) -> None:
        self._takes = takes
        self._handler = handler

    def on_add(self, obj: T, is_in_initial_list: bool) -> Awaitable[object] | object:
        return self._handler.on_add(obj, is_in_initial_list) if self._takes(obj) else None

    def on_update(self, old: T, new: T) -> Awaitable[object] | object:
        before, now = self._takes(old), self._takes(new)
        if now:
            return self._handler.on_update(old, new) if before else self._handler.on_add(new, False)
        return self._handler.on_delete(old) if before else None

    def on_delete(self, obj: T | DeletedFinalStateUnknown[T]) -> Awaitable[object] | object:
        last: Any = obj.object if isinstance(obj, DeletedFinalStateUnknown) else obj
        return self._handler.on_delete(obj) if last is not None and self._takes(last) else None


class Notification(NamedTuple):
    """What a handler is to be told. `old` is None for an ADD; `new` of a DELETE is the last state or a tombstone."""

    kind: int
    key: str
    old: Any
    new: Any
    initial: bool = False


def merge(notifications: Iterable[Notification]) -> list[Notification]:
    """Leave one notification an object, at most: from the state that the handler knows to the last one.

    An object that came and went meanwhile is not mentioned. One that went and came again is an update.
    """
    found: dict[str, Notification] = {}
    for late in notifications:
        early = found.pop(late.key, None)
        merged = late if early is None else _merged(early, late)
        if merged is not None:
            found[late.key] = merged
    return [*found.values()]


def _merged(early: Notification, late: Notification) -> Notification | None:
    if early.kind == ADD:
        return None if late.kind == DELETE else Notification(ADD, late.key, None, late.new, early.initial)
    if late.kind == DELETE:
        return late
    if early.kind == DELETE:
        gone = early.new
        known = gone.object if isinstance(gone, DeletedFinalStateUnknown) else gone
        return Notification(UPDATE, late.key, known, late.new)
    return Notification(UPDATE, late.key, early.old, late.new)


class Listener(Generic[T]):
    """The registration of one handler: has it synced, how far is it behind, is it stuck.

    Notifications are handed over one after the other. When more than `bound` wait, those of one object are merged, so
    that a slow handler costs memory for each object at most, and no order is lost.

    packed: whether the handler takes packed objects as they are; they are read for it otherwise. unreadable: is told
    of one that does not fit its type, which the handler is not.
    """

    def __init__(  # noqa: PLR0913  all but three have a default
        self,
        handler: EventHandler[T],
        name: str,
        *,
        clock: Clock,
        resync_seconds: float = 0.0,
        bound: int = BOUND,
        crash_pause: float = CRASH_PAUSE_SECONDS,
        packed: bool = False,
        unreadable: Callable[[str, Exception], object] | None = None,
        removed: Callable[[Listener[T]], None] | None = None,
    ) -> None:
        self.name: Final = name
        self.resync_asked: Final = resync_seconds
        self.resync_seconds = resync_seconds
        self.is_syncing = True
        """Whether resyncs are passed on: set anew at each."""
        self.failures = 0
        self.merges = 0
        """How often notifications were merged because too many waited."""
        self.delivered = 0
        self._handler = handler
        self._clock = clock
        self._next_resync = clock.monotonic() + resync_seconds
        self._bound = bound
        self._limit = bound
        self._crash_pause = crash_pause
        self._packed = packed
        self._unreadable = unreadable
        self._pending: deque[Notification] = deque()
        self._initial_left = 0
        self._upstream_synced = False
        self._has_synced = False
        self._synced = asyncio.Event()
        """That nobody need wait any more: it has synced, or never will."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waits_since: float | None = None
        self._current: Notification | None = None
        self._removed = removed

    @property
    def has_synced(self) -> bool:
        """Whether the handler was told of everything that was there when it came."""
        return self._has_synced

    @property
    def pending(self) -> int:
        """Notifications that wait."""
        return len(self._pending)

    async def wait_synced(self) -> None:
        """Wait until the handler was told of everything that was there when it came.

        Raises RuntimeError if it is removed, or its informer stopped, before.
        """
        await self._synced.wait()
        if not self._has_synced:
            raise RuntimeError(f"handler {self.name}: it ended before it was told of everything")

    def remove(self) -> None:
        """End this handler at once; what waits is dropped. More than once is fine."""
        if self._removed is not None:
            self._removed(self)
        self.stop()

    def stuck_seconds(self) -> float:
        """Return for how long a coroutine of the handler has not returned."""
        return 0.0 if self._waits_since is None else self._clock.monotonic() - self._waits_since

    @property
    def is_dead(self) -> bool:
        """Whether it was started and runs no more, though nobody stopped it."""
        return self._task is not None and self._task.done()

    def start(self) -> None:
        """Begin to hand over, in a task of the running loop; anew after that was ended from outside.

        What was being handed over then is handed over again.
        """
        if self._current is not None:
            self._pending.appendleft(self._current)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"handler {self.name}")

    def stop(self) -> asyncio.Task[None] | None:
        """End the task and forget what waits; return the task, for who waits for its end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._pending.clear()
        self._synced.set()
        return task

    def add(self, notification: Notification) -> None:
        """Queue one."""
        self._pending.append(notification)
        if notification.initial:
            self._initial_left += 1
        if len(self._pending) > self._limit:
            self._merge()
        self._wake.set()

    def upstream_synced(self) -> None:
        """Note that no more notifications of the initial list come."""
        self._upstream_synced = True
        self._check_synced()

    def should_resync(self, now: float) -> bool:
        """Whether a resync is due; sets the time of the next."""
        self.is_syncing = bool(self.resync_seconds) and now >= self._next_resync
        if self.is_syncing:
            self._next_resync = now + self.resync_seconds
        return self.is_syncing

    def _merge(self) -> None:
        self.merges += 1
        merged = merge(self._pending)
        left = sum(notification.initial for notification in self._pending)
        self._initial_left -= left - sum(notification.initial for notification in merged)
        self._pending = deque(merged)
        self._limit = max(self._bound, 2 * len(merged))
        self._check_synced()

    def _check_synced(self) -> None:
        if self._upstream_synced and not self._initial_left:
            self._has_synced = True
            self._synced.set()

    async def _run(self) -> None:
        while True:
            while self._pending:
                for _ in range(min(len(self._pending), _AT_ONCE)):
                    if not self._pending:
                        break
                    rest = self._tell(self._pending.popleft())
                    if rest is not None:
                        await rest
                await asyncio.sleep(0)
            self._limit = self._bound
            self._wake.clear()
            await self._wake.wait()

    def _tell(self, notification: Notification) -> Coroutine[Any, Any, None] | None:
        """Hand over a notification; return what is left to be awaited, which most often is nothing."""
        self._current = notification
        try:
            result = self._call(notification)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  whatever it is, it is told and passed over
            return self._failed(notification, error)
        if result is not None and inspect.isawaitable(result):
            return self._wait(notification, result)
        self._told(notification)
        return None

    async def _wait(self, notification: Notification, result: Awaitable[object]) -> None:
        self._waits_since = self._clock.monotonic()
        try:
            await result
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            self._waits_since = None
            await self._failed(notification, error)
            return
        finally:
            self._waits_since = None
        self._told(notification)

    async def _failed(self, notification: Notification, error: BaseException) -> None:
        self.failures += 1
        _log.error("handler failed", handler=self.name, object_key=notification.key, error=repr(error))
        await self._clock.sleep(self._crash_pause)
        self._told(notification)

    def _told(self, notification: Notification) -> None:
        self._current = None
        self.delivered += 1
        if notification.initial:
            self._initial_left -= 1
            self._check_synced()

    def _call(self, notification: Notification) -> object:
        told: Notification | None = notification
        if not self._packed:
            told = self._read(notification)
        if told is None:
            return None
        if told.kind == UPDATE:
            return self._handler.on_update(told.old, told.new)
        if told.kind == ADD:
            return self._handler.on_add(told.new, told.initial)
        return self._handler.on_delete(told.new)

    def _read(self, notification: Notification) -> Notification | None:
        """Read the objects of a notification. One that does not fit is as if it had not been seen."""
        kind, key, old, new, initial = notification
        if type(new) is DeletedFinalStateUnknown:
            if type(new.object) is not Packed:
                return notification
            return notification._replace(new=DeletedFinalStateUnknown(key, self._readable(key, new.object)))
        if type(new) is not Packed and type(old) is not Packed:
            return notification
        made = self._readable(key, new)
        if kind == DELETE:
            return notification._replace(new=DeletedFinalStateUnknown(key, None) if made is None else made)
        if made is None:
            return None
        if kind == UPDATE:
            before = made if old is new else self._readable(key, old)
            return Notification(ADD, key, None, made) if before is None else Notification(UPDATE, key, before, made)
        return Notification(kind, key, None, made, initial)

    def _readable(self, key: str, obj: Any) -> Any:
        try:
            return unpacked(obj)
        except BadAnswer as error:
            if self._unreadable is not None:
                self._unreadable(key, error)
            return None


def _nothing(*_: object) -> None:
    """Do nothing."""
