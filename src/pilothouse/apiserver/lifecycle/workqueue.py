"""Work by key: each key once at a time, however often it is asked for, and again later where it failed.

At rest there is neither a task nor a timer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from pilothouse.foundation.clock import Clock, Timer
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.status import ApiStatus, Conflict

__all__ = ["WorkQueue"]

_log = get_logger(__name__)

_K = TypeVar("_K", bound=Hashable)
_TURN = 64
"""Pieces of work that one worker does before others on the loop are let in."""


class WorkQueue(Generic[_K]):
    """Calls `work(key)` for each key that was added, at most `workers` at a time.

    work: returns the seconds after which to look at the key again, None where that is not needed. What it raises is
    tried again with growing waits, as `backoff` says; the keys that are known bound the queue.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[_K], Awaitable[float | None]],
        clock: Clock,
        *,
        workers: int = 16,
        backoff: Backoff | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._workers = workers
        self._backoff = backoff or Backoff(base=0.05, cap=30.0, attempts=None)
        self._source = random.Random()  # noqa: S311  # spreads load, guards nothing
        self._ready: dict[_K, None] = {}
        self._running: set[_K] = set()
        self._later: dict[_K, Timer] = {}
        self._failed: dict[_K, Iterator[float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Counted apart from the tasks: one that has ended is among those until the loop has told of it.
        self._alive = 0
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether anything is being done or waits to be done now."""
        return bool(self._ready or self._running)

    @property
    def waiting(self) -> int:
        """The number of keys that are looked at again later."""
        return len(self._later)

    def add(self, key: _K) -> None:
        """Ask for the work of a key, soon; while it is being done, once more after that."""
        if self._closed:
            return
        if timer := self._later.pop(key, None):
            timer.cancel()
        self._ready[key] = None
        if self._alive < self._workers and len(self._ready) > self._alive - len(self._running):
            self._alive += 1
            task = asyncio.get_running_loop().create_task(self._run(), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def add_all(self, keys: Iterable[_K]) -> None:
        """Ask for the work of several keys."""
        for key in keys:
            self.add(key)

    def add_later(self, key: _K, seconds: float) -> None:
        """Ask for the work of a key after so many seconds, unless it is asked for before."""
        if self._closed or key in self._ready:
            return
        if timer := self._later.pop(key, None):
            timer.cancel()
        self._later[key] = self._clock.call_later(seconds, lambda: self.add(key))

    async def close(self) -> None:
        """Stop; what is being done is broken off."""
        self._closed = True
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        self._ready.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _next(self) -> _K | None:
        for key in self._ready:
            if key not in self._running:
                del self._ready[key]
                return key
        return None

    async def _run(self) -> None:
        done = 0
        try:
            while (key := self._next()) is not None:
                self._running.add(key)
                try:
                    await self._one(key)
                finally:
                    self._running.discard(key)
                done += 1
                if not done % _TURN:
                    await asyncio.sleep(0)
        finally:
            self._alive -= 1

    async def _one(self, key: _K) -> None:
        try:
            again = await self._work(key)
        except ApiStatus as error:
            self._retry(key, error)
            level = _log.debug if isinstance(error, Conflict) else _log.info
            level("work failed and is tried again", queue=self._name, key=str(key), error=error.message)
        except Exception as error:  # noqa: BLE001  # one bad object must not stop the others
            self._retry(key, error)
            _log.exception("work failed and is tried again", queue=self._name, key=str(key))
        else:
            self._failed.pop(key, None)
            if again is not None:
                self.add_later(key, again)

    def _retry(self, key: _K, error: Exception) -> None:
        delays = self._failed.get(key)
        if delays is None:
            delays = self._failed[key] = self._backoff.delays(self._source)
        delay = next(delays, None)
        if delay is None:
            self._failed.pop(key, None)
            _log.error("work is given up", queue=self._name, key=str(key), error=str(error))
            return
        self.add_later(key, delay)
