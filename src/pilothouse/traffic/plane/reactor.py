"""The loop of a worker: epoll, deadlines, and work put off to the end of a round.

Deadlines are lazy: to put one off is an assignment, because each owner stands in the heap once and is asked again when
its entry is up. Descriptors are closed at the end of a round, so an event never meets a reused number.
"""

from __future__ import annotations

import heapq
import math
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from pilothouse.foundation.logs import get_logger

__all__ = ["HANGUP", "IN", "OUT", "SCRATCH_BYTES", "Closable", "Handler", "Reactor", "Timed"]

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
HANGUP: Final = select.EPOLLHUP | select.EPOLLERR

SCRATCH_BYTES: Final = 256 << 10
HEAD_READ_BYTES: Final = 16 << 10
"""Read at a time where a head comes: what of a large body came with it is not copied then."""

_EVENTS: Final = 256
"""Taken of the kernel at a time: what came later waits no longer than these."""

_log = get_logger(__name__)


class Closable(Protocol):
    """A socket, or something like it."""

    def close(self) -> None: ...


class Handler(Protocol):
    """Whoever is told what a descriptor is ready for."""

    def on_event(self, events: int) -> None: ...

    def on_crash(self) -> None:
        """Give up what an unexpected error left in the middle."""


class Timed:
    """Something with a deadline. deadline: on the reactor's clock, infinite for none."""

    __slots__ = ("deadline", "queued")

    def __init__(self) -> None:
        self.deadline = math.inf
        self.queued = math.inf

    def on_deadline(self) -> None:
        """Act on that the time is up."""
        raise NotImplementedError


class Reactor:
    """Runs handlers until it is stopped. now: monotonic seconds, read once a round.

    scratch: where reads go first; head_scratch: its part for heads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now = clock()
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.head_scratch = self.scratch[:HEAD_READ_BYTES]
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._suspended: set[int] = set()
        self._heap: list[tuple[float, int, Timed]] = []
        self._count = 0
        self._soon: deque[Callable[[], object]] = deque()
        self._leaving: list[Closable] = []
        self._stopped = False

    def register(self, fd: int, handler: Handler, events: int) -> None:
        """Have a handler told of events."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Be told of other events."""
        self._epoll.modify(fd, events)

    def suspend(self, fd: int) -> None:
        """Tell of nothing for a while."""
        self._epoll.unregister(fd)
        self._suspended.add(fd)

    def resume(self, fd: int, events: int) -> None:
        """Tell again what was suspended."""
        self._suspended.discard(fd)
        self._epoll.register(fd, events)

    def replace(self, fd: int, handler: Handler) -> None:
        """Have another handler told."""
        self._handlers[fd] = handler

    def has(self, fd: int) -> bool:
        """Return whether a handler is told of a descriptor's events."""
        return fd in self._handlers

    def retire(self, fd: int, sock: Closable) -> None:
        """Tell nobody any more, and close at the end of the round."""
        self.release(fd)
        self._leaving.append(sock)

    def release(self, fd: int) -> None:
        """Tell nobody any more; the descriptor stays open."""
        if self._handlers.pop(fd, None) is None:
            return
        if fd in self._suspended:
            self._suspended.discard(fd)
        else:
            self._epoll.unregister(fd)

    def arm(self, timed: Timed, when: float) -> None:
        """Set a deadline, instead of the one before."""
        timed.deadline = when
        if when < timed.queued:
            timed.queued = when
            self._count += 1
            heapq.heappush(self._heap, (when, self._count, timed))

    def soon(self, work: Callable[[], object]) -> None:
        """Do something at the end of this round."""
        self._soon.append(work)

    def stop(self) -> None:
        """End `run` after this round."""
        self._stopped = True

    def run(self) -> None:
        """Serve until `stop`."""
        self._stopped = False
        while not self._stopped:
            self.turn(self._wait())
        self.turn(0.0)

    def turn(self, wait: float) -> None:
        """Do one round, and wait for it at most so many seconds."""
        ready = self._epoll.poll(wait, _EVENTS)
        self.now = self._clock()
        handlers = self._handlers
        for fd, events in ready:
            handler = handlers.get(fd)
            if handler is None:
                continue
            try:
                handler.on_event(events)
            except Exception:  # noqa: BLE001  # one connection's fault is not the others'
                self._crashed(handler)
        if self._heap and self._heap[0][0] <= self.now:
            self._expire()
        for _ in range(len(self._soon)):
            self._do(self._soon.popleft())
        if self._leaving:
            for sock in self._leaving:
                sock.close()
            self._leaving.clear()

    def close(self) -> None:
        """Let go of the kernel's objects."""
        self._epoll.close()

    def _wait(self) -> float:
        if self._soon:
            return 0.0
        if not self._heap:
            return -1.0
        return max(0.0, self._heap[0][0] - self._clock()) + 0.000_5

    def _expire(self) -> None:
        heap, now = self._heap, self.now
        while heap and heap[0][0] <= now:
            when, _, timed = heapq.heappop(heap)
            if when != timed.queued:
                continue  # an earlier deadline was set meanwhile, and has an entry of its own
            timed.queued = math.inf
            if timed.deadline <= now:
                timed.deadline = math.inf
                self._do(timed.on_deadline)
            elif timed.deadline != math.inf:
                self.arm(timed, timed.deadline)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001  # as above
            _log.exception("a worker's task failed")

    def _crashed(self, handler: Handler) -> None:
        _log.exception("a connection's handler failed", handler=type(handler).__name__)
        self._do(handler.on_crash)
