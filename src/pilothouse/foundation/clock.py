"""Time as a dependency: a `Clock` that programs read and wait by, and one that tests turn by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "FakeClock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Forget the call; one that was made already or cancelled before is fine."""


class Clock(Protocol):
    """What the time is, and how to wait."""

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime; it may jump."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never goes back. For deadlines and durations."""

    async def sleep(self, seconds: float) -> None:
        """Wait; zero and less only let other tasks run."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the event loop after `seconds`."""


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


class _FakeTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until a test moves it.

    Timers run in the order of their deadlines, those of one deadline in the order they were set. `advance` suits
    plain state machines; `run` suits asyncio code: after each timer it lets the tasks it woke run until they wait
    again, so a loop that sleeps one second runs ten times in `run(10)`. Tasks have 32 turns of the event loop to get
    there; work in threads or on sockets is not waited for.
    """

    _SETTLE_TURNS = 32

    def __init__(self, start: datetime = datetime(2025, 1, 1, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError("start: a naive datetime; pass an aware one, e.g. datetime(2025, 1, 1, tzinfo=UTC)")
        self._start = start.astimezone(UTC)
        self._elapsed = 0.0
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (self._elapsed + max(seconds, 0.0), next(self._order), timer))
        return timer

    @property
    def waiting(self) -> int:
        """The number of timers and sleepers that are still to come."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Move the time and run the timers that fall due; tasks they wake run when the test next awaits."""
        end = self._end(seconds)
        while self._fire(end):
            pass
        self._elapsed = end

    async def run(self, seconds: float) -> None:
        """Move the time, and let woken tasks run at the very instant of each timer."""
        await self._settle()
        end = self._end(seconds)
        while self._fire(end):
            await self._settle()
        self._elapsed = end
        await self._settle()

    def _end(self, seconds: float) -> float:
        if seconds < 0:
            raise ValueError(f"seconds: {seconds} is negative; time does not go back")
        return self._elapsed + seconds

    def _fire(self, end: float) -> bool:
        """Run the next timer due at or before `end`; return whether there was one."""
        while self._timers and self._timers[0][0] <= end:
            deadline, _, timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._elapsed = max(self._elapsed, deadline)
                callback()
                return True
        return False

    async def _settle(self) -> None:
        for _ in range(self._SETTLE_TURNS):
            await asyncio.sleep(0)
