"""Companions: what runs beside the controllers of a manager, on the same caches and for as long as they work."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

from pilothouse.client.deadline import within
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger

from .errors import BuildError

__all__ = ["Companion", "Companions"]

_LEAST_SECONDS: Final = 1.0
"""What a companion has for its end even where all must end at once, as when the lease is lost."""

_log = get_logger("pilothouse.operator.companion")


class Companion(ABC):
    """Works beside the controllers of a manager that it was given to by `add_companion`.

    It begins before them, when caches are filled and, with a leader election, this copy leads, and it ends after them:
    what their reconciles use is there until the last of them has ended.
    """

    name: str
    """Of which a manager has one."""

    @abstractmethod
    async def run(self) -> None:
        """Work until it is cancelled, and then close what is open; what takes too long is cut.

        One that returns has nothing to do any more. What it raises ends the manager, whose `run` raises it.
        """

    def problem(self) -> str:
        """Return what is not well, and an empty text otherwise; the manager is not ready meanwhile."""
        return ""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do now: a harness waits for it."""
        return True


class Companions:
    """The companions of one manager."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_name: dict[str, Companion] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[Companion]:
        return iter([*self._by_name.values()])

    def add(self, companion: Companion) -> None:
        """Take one. Raises BuildError where the name is taken."""
        if companion.name in self._by_name:
            raise BuildError(f"companion {companion.name}: there is one of this name; give the other its own")
        self._by_name[companion.name] = companion

    def start(self) -> None:
        """Begin all of them."""
        for name, companion in self._by_name.items():
            task = asyncio.get_running_loop().create_task(companion.run(), name=f"companion {name}")
            self._running[name] = task
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a companion failed", companion=task.get_name(), error=f"{type(error).__name__}: {error}")
            self._failure = self._failure or error
            self._failed.set()

    async def wait_failed(self) -> None:
        """Wait until one has failed."""
        await self._failed.wait()

    async def stop(self, seconds: float) -> None:
        """End all of them, each in so many seconds at most, and 1 s at least. Raises what one of them has raised."""
        await asyncio.gather(*(self._stop(name, max(seconds, _LEAST_SECONDS)) for name in [*self._running]))
        if self._failure is not None:
            raise self._failure

    async def _stop(self, name: str, seconds: float) -> None:
        task = self._running.pop(name)
        task.cancel()
        try:
            async with within(self._clock, seconds, f"companion {name}"):
                await asyncio.wait([task])
        except TimeoutError:
            _log.error("companion stopped hard", companion=name, seconds=seconds)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    def problems(self) -> list[str]:
        """Return what is not well."""
        return [f"companion {each.name}: {text}" for each in self if (text := each.problem())]

    @property
    def is_idle(self) -> bool:
        """Whether none has anything to do now."""
        return all(each.is_idle for each in self)
