"""Changes gathered for some milliseconds and then carried out together, again and again until that succeeds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger

__all__ = ["Batches"]

GATHER_SECONDS: Final = 0.01
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0

_log = get_logger("pilothouse.node.services")


class Batches:
    """Calls `work` soon after `poke`, once for all pokes meanwhile; what raises is tried again, later each time.

    The first change waits 10 ms for others, so a batch begins well within 50 ms while the event loop is free.
    `problem` is why the last try failed, empty where it did not.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], clock: Clock | None = None) -> None:
        self.problem = ""
        self._name = name
        self._work = work
        self._clock = clock or SystemClock()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; a second time is fine."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    def poke(self) -> None:
        """Say that there is something to do."""
        self._wanted.set()

    async def stop(self) -> None:
        """End; work that goes on is cancelled."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        pause = 0.0
        while True:
            await self._wanted.wait()
            await self._clock.sleep(GATHER_SECONDS)
            self._wanted.clear()
            try:
                await self._work()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next try may go well
                pause = min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
                self.problem = str(error) or type(error).__name__
                _log.warning("changes could not be carried out", what=self._name, error=self.problem, pause=pause)
                self._wanted.set()
                await self._clock.sleep(pause)
            else:
                pause, self.problem = 0.0, ""
