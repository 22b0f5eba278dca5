"""Time limits by an injected clock: for one call, and for the silence between events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from pilothouse.foundation.clock import Clock, Timer

__all__ = ["is_being_cancelled", "noticing_silence", "within"]


_LOOKS: Final = 3
"""How often it is looked within the time of silence that is allowed."""


def is_being_cancelled() -> bool:
    """Whether somebody cancels the running task, rather than what it waited for having been cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Interrupt:
    """Cancels the task it was made in, and tells its own cancellation from that of others."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit wants a running task; call this from a coroutine")
        self._task = task
        self._before = task.cancelling()
        self.fired = False

    def fire(self) -> None:
        if not self.fired:
            self.fired = True
            self._task.cancel()

    def is_own(self, error: BaseException) -> bool:
        """Whether what left the block is this interrupt's doing alone; takes the cancellation back."""
        if not self.fired:
            return False
        alone = self._task.uncancel() <= self._before
        return alone and isinstance(error, asyncio.CancelledError | Exception)


@asynccontextmanager
async def within(clock: Clock, seconds: float, what: str) -> AsyncIterator[None]:
    """Bound the time of the block. Raises TimeoutError, which names `what`."""
    interrupt = _Interrupt()
    timer = clock.call_later(seconds, interrupt.fire)
    try:
        yield
    except BaseException as error:
        if interrupt.is_own(error):
            raise TimeoutError(f"{what}: no answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


@asynccontextmanager
async def noticing_silence(clock: Clock, seconds: float, count: Callable[[], int], what: str) -> AsyncIterator[None]:
    """Bound the time in which nothing is heard to `seconds` and up to a third more. Raises TimeoutError.

    count: of what was heard so far; it costs nothing for each event.
    """
    interrupt = _Interrupt()
    heard, quiet = count(), 0
    timer: Timer

    def look() -> None:
        nonlocal heard, quiet, timer
        now = count()
        heard, quiet = now, quiet + 1 if now == heard else 0
        if quiet >= _LOOKS:
            interrupt.fire()
            return
        timer = clock.call_later(seconds / _LOOKS, look)

    timer = clock.call_later(seconds / _LOOKS, look)
    try:
        yield
    except BaseException as error:
        if interrupt.is_own(error):
            raise TimeoutError(f"{what}: nothing was heard for {seconds:g} s, not even a bookmark") from None
        raise
    finally:
        timer.cancel()
