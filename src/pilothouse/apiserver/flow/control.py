"""The door: gives each request a seat at once, lets it wait for one, or refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.apiserver.flow.defaults import CATCH_ALL
from pilothouse.apiserver.flow.drops import Drops
from pilothouse.apiserver.flow.levels import Level, Seats, read_levels
from pilothouse.apiserver.flow.metrics import FlowMetrics
from pilothouse.apiserver.flow.queues import Queue, Waiting, deal, hash_flow
from pilothouse.apiserver.flow.schemas import Schema, in_order
from pilothouse.apiserver.model import RequestInfo, Response, User
from pilothouse.apiserver.ports import View
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.status import Details, TooManyRequests

__all__ = ["FlowControl", "Limits", "Rejected", "Ticket"]

_SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
_LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
_TEXT = "Too many requests, please try again later."
_LONG_RUNNING: Final = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_REMEMBERED = 8192
_REMEMBERED_LENGTH = 1024

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is served at once.

    requests, mutating: as `--max-requests-inflight` and `--max-mutating-requests-inflight`; their sum is shared out.
    queue_wait: seconds that a request waits at most.
    """

    requests: int = 400
    mutating: int = 200
    queue_wait: float = 15.0


class Rejected(TooManyRequests):
    """The server is busy. `headers` are those of the answer, Retry-After included."""

    def __init__(self, seconds: int, headers: Headers, reason: str) -> None:
        super().__init__(_TEXT, Details(retry_after_seconds=seconds))
        self.headers: Headers = (*headers, ("Retry-After", str(seconds)))
        self.why = reason
        """`concurrency-limit`, `queue-full` or `time-out`."""

    def response(self) -> Response:
        """Return the answer as kube-apiserver gives it: plain text, no Status."""
        headers = (*self.headers, ("X-Content-Type-Options", "nosniff"))
        return Response(self.code, f"{_TEXT}\n".encode(), headers, "text/plain; charset=utf-8")


class Ticket:
    """A seat. `release` it once the request is answered, for a watch once it has started; further calls do nothing.

    headers: X-Kubernetes-PF-PriorityLevel-UID and -FlowSchema-UID for the answer.
    """

    __slots__ = ("_control", "_level", "_queue", "_since", "headers")

    def __init__(
        self, control: FlowControl | None, level: Level | None, headers: Headers, queue: Queue | None, since: float
    ) -> None:
        self._control = control
        self._level = level
        self._queue = queue
        self._since = since
        self.headers = headers

    def release(self) -> None:
        """Give the seat back; who waits longest for it gets it."""
        level = self._level
        if level is None or self._control is None:
            return
        self._level = None
        self._control._release(level, self._queue, self._since)


_UNTRACKED: Final = Ticket(None, None, (), None, 0.0)


class _Class:
    """What is known of all requests with the same user, verb and resource."""

    __slots__ = ("count", "flow", "hand", "headers", "level", "schema")

    def __init__(self, schema: Schema, level: Level, flow: str, count: Callable[[], None]) -> None:
        self.schema = schema
        self.level = level
        self.flow = flow
        self.hand: tuple[int, ...] = ()
        self.count = count
        self.headers: Headers = (
            ("X-Kubernetes-PF-PriorityLevel-UID", level.config.uid),
            ("X-Kubernetes-PF-FlowSchema-UID", schema.uid),
        )


class FlowControl:
    """API Priority and Fairness. All methods belong to one event loop."""

    def __init__(self, view: View, clock: Clock, limits: Limits | None = None, metrics: Metrics = PROGRAM) -> None:
        self.limits = limits or Limits()
        self._view = view
        self._clock = clock
        self._seats = Seats(self.limits.requests + self.limits.mutating)
        self._schemas: list[Schema] = []
        self._classes: dict[tuple[Any, ...], _Class] = {}
        self._drops: dict[str, Drops] = {}
        self._metrics = FlowMetrics(metrics)
        self._changed = True
        self._waits = 0
        """Requests that wait, or have their seat and do not know it yet."""
        self._stop = [view.notify(resource, self._note) for resource in (_SCHEMAS, _LEVELS)]

    def close(self) -> None:
        """Stop following the configuration."""
        for stop in self._stop:
            stop()
        self._stop = []

    def _note(self, _namespace: str, _name: str) -> None:
        self._changed = True

    def _configure(self) -> None:
        self._changed = False
        configs = read_levels(self._view.list(_LEVELS))
        self._seats.configure(configs)
        self._schemas = in_order(self._view.list(_SCHEMAS), configs)
        self._classes.clear()
        self._drops = {name: drops for name, drops in self._drops.items() if name in configs}
        self._metrics.levels(self._seats.levels)
        self._dispatch()

    def classify(self, user: User, info: RequestInfo) -> tuple[str, str]:
        """Return the names of the flow schema and the priority level that a request belongs to."""
        found = self._class(user, info)
        return found.schema.name, found.level.config.name

    def admit(self, user: User, info: RequestInfo) -> Ticket | Awaitable[Ticket]:
        """Return a seat where one is free, else something to await that gives one.

        Either may raise Rejected. A cancelled wait leaves the queue. Long-running requests other than watches are not
        counted; a watch holds its seat until its caller releases it, which is when it has started.
        """
        if info.subresource in _LONG_RUNNING or info.verb == "proxy":
            return _UNTRACKED
        found = self._class(user, info)
        level = found.level
        if self._seats.take(level):
            found.count()
            return Ticket(self, level, found.headers, None, 0.0)
        if level.queues is None or level.config.queues is None:
            raise self._reject(found, "concurrency-limit")
        return self._wait(user, info)

    def _class(self, user: User, info: RequestInfo) -> _Class:
        if self._changed:
            self._configure()
        if info.is_resource:
            key: tuple[Any, ...] = (
                user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace,
            )  # fmt: skip
        else:
            key = (user.name, user.groups, info.verb, info.path)
        found = self._classes.get(key)
        return found if found is not None else self._sort(key, user, info)

    def _sort(self, key: tuple[Any, ...], user: User, info: RequestInfo) -> _Class:
        schema = next((each for each in self._schemas if each.matches(user, info)), self._schemas[-1])
        level = self._seats.levels[schema.level if schema.level in self._seats.levels else CATCH_ALL]
        flow = schema.flow(user, info)
        found = _Class(schema, level, flow, self._metrics.dispatched(level.config.name, schema.name))
        if len(info.path) <= _REMEMBERED_LENGTH:
            if len(self._classes) >= _REMEMBERED:
                self._classes.clear()
            self._classes[key] = found
        return found

    async def _wait(self, user: User, info: RequestInfo) -> Ticket:
        # Between the call and the await a seat may have come free, or the configuration have changed.
        found = self._class(user, info)
        level, queues = found.level, found.level.queues
        if self._seats.take(level):
            found.count()
            return Ticket(self, level, found.headers, None, 0.0)
        if queues is None or level.config.queues is None:
            raise self._reject(found, "concurrency-limit")
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        config = queues.config
        if not found.hand:
            found.hand = deal(hash_flow(found.schema.name, found.flow), config.queues, config.hand_size)
        waiting = queues.enter(found.hand, lambda: _grant(granted))
        if waiting is None:
            raise self._reject(found, "queue-full")
        self._waits += 1
        began = self._clock.monotonic()
        timer = self._clock.call_later(self.limits.queue_wait, lambda: self._expire(level, waiting, granted))
        try:
            await granted
        except asyncio.CancelledError:
            queues.leave(waiting)
            if not granted.cancelled() and granted.exception() is None:
                # The seat came together with the cancellation.
                self._release(level, waiting.queue, self._clock.monotonic())
            raise
        except TimeoutError:
            raise self._reject(found, "time-out") from None
        finally:
            self._waits -= 1
            timer.cancel()
            self._metrics.waited(level.config.name, self._clock.monotonic() - began)
        found.count()
        return Ticket(self, level, found.headers, waiting.queue, self._clock.monotonic())

    @staticmethod
    def _expire(level: Level, waiting: Waiting, granted: asyncio.Future[None]) -> None:
        if not granted.done():
            if level.queues is not None:
                level.queues.leave(waiting)
            granted.set_exception(TimeoutError())

    def _release(self, level: Level, queue: Queue | None, since: float) -> None:
        self._seats.give_back(level)
        if queue is not None and level.queues is not None:
            level.queues.done(queue, self._clock.monotonic() - since)
        if self._waits:
            self._dispatch()

    def _dispatch(self) -> None:
        while (level := self._seats.next()) is not None:
            queues = level.queues
            if queues is None:
                continue
            waiting = queues.take()
            if not waiting.grant():
                self._seats.give_back(level)
                queues.done(waiting.queue, 0.0)

    def _reject(self, found: _Class, reason: str) -> Rejected:
        name = found.level.config.name
        drops = self._drops.get(name)
        if drops is None:
            drops = self._drops[name] = Drops()
        drops.record(int(self._clock.monotonic()))
        self._metrics.rejected(name, found.schema.name, reason)
        return Rejected(drops.retry_after, found.headers, reason)


def _grant(granted: asyncio.Future[None]) -> bool:
    """Tell who waits that it has its seat; False where it was cancelled meanwhile."""
    if granted.done():
        return False
    granted.set_result(None)
    return True
