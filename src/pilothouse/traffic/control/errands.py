"""Work that is asked for at any time, done once for all who asked meanwhile, and done again where it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from pilothouse.client.errors import ClientError
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus

__all__ = ["AGAIN_SECONDS", "Errand"]

_log = get_logger(__name__)

AGAIN_SECONDS: Final = (0.2, 30.0)
"""How long to wait after the first failure, and at most."""


class Errand:
    """One kind of work. pause: seconds between that it is asked for and that it is begun, so that more can come."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], clock: Clock, pause: float = 0.0) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._pause = pause
        self._asked = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._failures = 0

    def ask(self) -> None:
        """Have the work done."""
        self._quiet.clear()
        self._asked.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for and nothing is done."""
        return self._quiet.is_set()

    async def quiet(self, seconds: float) -> None:
        """Wait until nothing is asked for and nothing is done, so many seconds at most."""
        if not self._quiet.is_set():
            await asyncio.wait([asyncio.ensure_future(self._quiet.wait())], timeout=seconds)

    async def run(self) -> None:
        """Work whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            await self._clock.sleep(self._pause)
            self._asked.clear()
            try:
                await self._work()
                self._failures = 0
            except (ClientError, ApiStatus, OSError) as error:
                self._again(error)
            except Exception as error:  # noqa: BLE001  one object that nobody thought of must not stop all others
                _log.exception("what gateways need could not be done", work=self._name)
                self._again(error)
            if not self._asked.is_set():
                self._quiet.set()

    def _again(self, error: Exception) -> None:
        least, most = AGAIN_SECONDS
        seconds = min(most, least * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        _log.warning("the gateway is worked on again", work=self._name, error=str(error), seconds=seconds)
        self._clock.call_later(seconds, self.ask)
