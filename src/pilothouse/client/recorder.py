"""Events about objects, for people to read: recorded without waiting, and written one after the other."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

from pilothouse.client.deadline import is_being_cancelled
from pilothouse.client.event_correlation import Correlated, CorrelationOptions, EventCorrelator
from pilothouse.client.metrics import Sample, register
from pilothouse.client.objects import namespace_of, resource_version_of, uid_of
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists, ApiStatus, NotFound

if TYPE_CHECKING:
    from pilothouse.foundation.metrics import Metrics

__all__ = ["ClientEventSink", "EventBroadcaster", "EventClient", "EventRecorder", "EventSink", "EventType", "reference"]

EventType = Literal["Normal", "Warning"]

MAX_QUEUED: Final = 1_000
_TRIES: Final = 12
_PAUSE_SECONDS: Final = 10.0
_MAX_MESSAGE: Final = 1_024
_MAX_REASON: Final = 128
_NAMESPACE_ENDS: Final = "NamespaceTerminating"

_log = get_logger("pilothouse.client.recorder")


class EventSink(Protocol):
    """Where events are written. Errors: ApiStatus, OSError."""

    async def create(self, event: dict[str, Any]) -> dict[str, Any]:
        """Create an event and return it as the server keeps it."""

    async def patch(self, event: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        """Change an event by a merge patch and return it as the server keeps it."""


class _Events(Protocol):
    async def create(self, value: Any, namespace: str | None = None, /) -> Any: ...
    async def patch(self, name: str, patch: Any, namespace: str | None = None, /) -> Any: ...


class EventClient(Protocol):
    """What events need of a client."""

    def dynamic(self, api_version: str, kind: str, /) -> _Events:
        """Return the calls on a kind whose objects are dictionaries."""


class ClientEventSink:
    """Writes events by a client."""

    def __init__(self, client: EventClient) -> None:
        self._events = client.dynamic("v1", "Event")

    async def create(self, event: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = await self._events.create(event, event["metadata"]["namespace"])
        return made

    async def patch(self, event: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        metadata = event["metadata"]
        made: dict[str, Any] = await self._events.patch(metadata["name"], patch, metadata["namespace"])
        return made


def reference(obj: Any, *, field_path: str = "") -> dict[str, Any]:
    """Return an ObjectReference to an object. Raises ValueError for one that does not say its kind."""
    if isinstance(obj, dict):
        api_version, kind, name = obj.get("apiVersion", ""), obj.get("kind", ""), obj["metadata"].get("name", "")
    else:
        api_version, kind, name = obj.api_version, obj.kind, obj.metadata.name
    if not kind or not api_version:
        raise ValueError(f"event about {name or 'an object'}: it has no apiVersion and kind; fill them in")
    found = {
        "kind": kind,
        "namespace": namespace_of(obj),
        "name": name,
        "uid": uid_of(obj),
        "apiVersion": api_version,
        "resourceVersion": resource_version_of(obj),
        "fieldPath": field_path,
    }
    return {key: value for key, value in found.items() if value}


class EventBroadcaster:
    """Takes events of many recorders and writes them in one task, correlated; `async with`, or `start` and `stop`.

    When more than `max_queued` wait, new ones are dropped, counted and logged: events must not hold up who works.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        options: CorrelationOptions | None = None,
        max_queued: int = MAX_QUEUED,
        clock: Clock | None = None,
        source: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock or SystemClock()
        self._correlator = EventCorrelator(self._clock, options)
        self._source = source or random.Random()  # noqa: S311  # spreads load, guards nothing
        self._max_queued = max_queued
        self._queue: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._second, self._stamp = -1, ""
        self.written = self.dropped = self.spam = self.failed = 0
        register(self, metrics)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def clock(self) -> Clock:
        """The clock that events are stamped by."""
        return self._clock

    def start(self) -> None:
        """Begin to write, in a task of the running loop. A second call does nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="event broadcaster")

    async def stop(self, flush_seconds: float = 0.0) -> None:
        """End at once, or after what waits was written within so many seconds; what is left is dropped and counted."""
        if flush_seconds and self._task is not None and not self._task.done():
            flushed = asyncio.ensure_future(self._idle.wait())
            timer = self._clock.call_later(flush_seconds, flushed.cancel)
            await asyncio.wait([flushed, self._task], return_when=asyncio.FIRST_COMPLETED)
            timer.cancel()
            flushed.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.dropped += len(self._queue)
        self._queue.clear()

    def stamp(self, moment: datetime) -> str:
        """Return a moment as events have it; most events of a burst have the same second."""
        second = int(moment.timestamp())
        if second != self._second:
            self._second, self._stamp = second, times.format_seconds(moment)
        return self._stamp

    def recorder(self, component: str, host: str = "") -> EventRecorder:
        """Return what a component records its events with."""
        return EventRecorder(self, component, host)

    def take(self, event: dict[str, Any]) -> bool:
        """Queue an event; return False where too many wait."""
        if len(self._queue) >= self._max_queued:
            self.dropped += 1
            _log.error("event dropped: too many wait", reason=event["reason"], about=event["involvedObject"])
            return False
        self._queue.append(event)
        self._idle.clear()
        self._wake.set()
        return True

    def samples(self) -> Iterable[Sample]:
        """Return the figures of events."""
        yield Sample("gauge", "pilothouse_client_events_queued", "Events that wait to be written", {}, len(self._queue))
        for outcome, count in (
            ("written", self.written),
            ("dropped", self.dropped),
            ("spam", self.spam),
            ("failed", self.failed),
        ):
            name, text = "pilothouse_client_events_total", "Events by what became of them"
            yield Sample("counter", name, text, {"outcome": outcome}, count)

    async def _run(self) -> None:
        while True:
            while self._queue:
                try:
                    await self._record(self._queue.popleft())
                except (Exception, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                        raise
                    self.failed += 1
                    _log.error("event not written", error=repr(error))
            self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    async def _record(self, event: dict[str, Any]) -> None:
        correlated = self._correlator.correlate(event)
        if correlated is None:
            self.spam += 1
            return
        for tries in range(1, _TRIES + 1):
            try:
                kept = await self._write(correlated)
            except ApiStatus as error:
                self._refused(correlated.event, error)
                return
            except OSError as error:
                _log.warning("event not written; trying again", about=event["involvedObject"], error=repr(error))
            else:
                self._correlator.written(kept)
                self.written += 1
                return
            if tries < _TRIES:
                # Many clients that lost their server must not come back together.
                await self._clock.sleep(_PAUSE_SECONDS * (self._source.random() if tries == 1 else 1.0))
        self.failed += 1
        _log.error("event given up", about=event["involvedObject"], tries=_TRIES)

    async def _write(self, correlated: Correlated) -> dict[str, Any]:
        event = correlated.event
        if correlated.patch is not None:
            try:
                return await self._sink.patch(event, correlated.patch)
            except NotFound:
                pass  # it was deleted or has expired
        metadata = {name: value for name, value in event["metadata"].items() if name != "resourceVersion"}
        return await self._sink.create({**event, "metadata": metadata})

    def _refused(self, event: dict[str, Any], error: ApiStatus) -> None:
        self.failed += 1
        expected = isinstance(error, AlreadyExists) or any(
            cause.get("reason") == _NAMESPACE_ENDS for cause in error.causes
        )
        tell = _log.debug if expected else _log.error
        tell("event refused", about=event["involvedObject"], reason=event["reason"], error=repr(error))


class EventRecorder:
    """Records the events of one component."""

    def __init__(self, broadcaster: EventBroadcaster, component: str, host: str = "") -> None:
        if not component:
            raise ValueError("component: it is empty; give the name of the controller that records")
        self._broadcaster = broadcaster
        self._component = component
        self._host = host

    def normal(self, about: Any, reason: str, message: str, **options: Any) -> bool:
        """Record that something went its way; see `event`."""
        return self.event(about, "Normal", reason, message, **options)

    def warning(self, about: Any, reason: str, message: str, **options: Any) -> bool:
        """Record that something is wrong; see `event`."""
        return self.event(about, "Warning", reason, message, **options)

    def event(
        self,
        about: Any,
        kind: EventType,
        reason: str,
        message: str,
        *,
        annotations: Mapping[str, str] | None = None,
        field_path: str = "",
    ) -> bool:
        """Record an event about an object; returns at once, False where it was dropped because too many wait.

        reason: one word in CamelCase for programs. Raises ValueError for another type than Normal and Warning, and for
        an object that does not say its kind.
        """
        if kind not in {"Normal", "Warning"}:
            raise ValueError(f"event type: {kind!r}; want Normal or Warning")
        if not reason or len(reason) > _MAX_REASON:
            raise ValueError(f"event reason: {reason[:40]!r}; want a word of 1 to {_MAX_REASON} characters")
        where = reference(about, field_path=field_path)
        moment = self._broadcaster.clock.now()
        stamp = self._broadcaster.stamp(moment)
        metadata: dict[str, Any] = {
            "name": f"{where.get('name', '')}.{int(moment.timestamp() * 1_000_000) * 1_000:x}",
            "namespace": where.get("namespace") or "default",
        }
        if annotations:
            metadata["annotations"] = dict(annotations)
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        return self._broadcaster.take(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": metadata,
                "involvedObject": where,
                "reason": reason,
                "message": message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…",
                "source": source,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "count": 1,
                "type": kind,
                "reportingComponent": self._component,
                "reportingInstance": self._host,
            }
        )
