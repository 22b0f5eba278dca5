"""Connections on which nothing happens for hours are cut, so that forgotten ones do not add up."""

from __future__ import annotations

from typing import Final

from pilothouse.apiserver.model import Duplex
from pilothouse.foundation.clock import Clock, Timer

__all__ = ["IDLE_SECONDS", "Watched"]

IDLE_SECONDS: Final = 4 * 3600.0
"""As a kubelet has it."""


class Watched:
    """A `Duplex` that is aborted after so many seconds without a byte either way; call `stop` when done."""

    def __init__(self, duplex: Duplex, clock: Clock, seconds: float = IDLE_SECONDS) -> None:
        self._duplex = duplex
        self._clock = clock
        self._seconds = seconds
        self._last = clock.monotonic()
        self._timer: Timer = clock.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self._last + self._seconds - self._clock.monotonic()
        if left <= 0:
            self._duplex.abort()
        else:
            self._timer = self._clock.call_later(left, self._look)

    def stop(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    async def read(self) -> bytes:
        data = await self._duplex.read()
        self._last = self._clock.monotonic()
        return data

    def write(self, data: bytes) -> None:
        self._last = self._clock.monotonic()
        self._duplex.write(data)

    async def drain(self) -> None:
        await self._duplex.drain()

    def close(self) -> None:
        self._duplex.close()

    def abort(self) -> None:
        self._duplex.abort()
