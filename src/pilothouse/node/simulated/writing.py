"""Writes of a fleet: the newest of each object, so many at once, tried again until the server takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from pilothouse.client.errors import ClientError
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, Conflict, NotFound

__all__ = ["Write", "Writes"]

Write: TypeAlias = Callable[[], Awaitable[object]]
_PAUSE, _TRIES = 0.5, 20
_log = get_logger("pilothouse.node.simulated")


class Writes:
    """`put` a write under a key: one that waits under the same key is replaced. `start` and `stop`."""

    def __init__(self, clock: Clock, writers: int) -> None:
        self._clock = clock
        self._writers = writers
        self._waiting: dict[str, Write] = {}
        self._queue: deque[str] = deque()
        self._busy: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.done = self.failed = 0

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(), name="fleet writes") for _ in range(self._writers)]

    async def stop(self) -> None:
        """End at once; what waits is not written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return len(self._waiting)

    def put(self, key: str, write: Write) -> None:
        """Write, later; keys that are written now are written again after that, in order."""
        if key not in self._waiting and key not in self._busy:
            self._queue.append(key)
            self._wake.set()
        self._waiting[key] = write

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            key = self._queue.popleft()
            write = self._waiting.pop(key, None)
            if write is None:
                continue
            self._busy.add(key)
            try:
                await self._try(key, write)
            finally:
                self._busy.discard(key)
            if key in self._waiting:
                self._queue.append(key)
                self._wake.set()

    async def _try(self, key: str, write: Write) -> None:
        for _ in range(_TRIES):
            try:
                await write()
            except (NotFound, Conflict):
                return  # it is gone, or another one
            except (ApiStatus, OSError, ClientError) as error:
                self.failed += 1
                _log.warning("not written; trying again", object=key, error=repr(error))
            else:
                self.done += 1
                return
            await self._clock.sleep(_PAUSE)
            write = self._waiting.pop(key, write)
        _log.error("given up", object=key)
