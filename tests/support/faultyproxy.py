"""A relay that does what networks do: stands still though it is open, loses bytes, takes its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from support.proxy import Proxy

__all__ = ["FaultyProxy", "faulty_proxy_to"]


class FaultyProxy(Proxy):
    """`half_open` takes connections and bytes and passes nothing on; `losing` drops bytes; `delay` is of each piece."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.losing = False
        self.lost = 0
        self.delay = 0.0
        self.stalls = 0
        self._flows = asyncio.Event()
        self._flows.set()

    def half_open(self) -> None:
        """Pass nothing on, of the present connections and of new ones, and end none of them."""
        self._flows.clear()

    async def mend(self) -> None:
        """Be well again: what stood still goes on, what was cut may come anew."""
        self.losing, self.delay = False, 0.0
        self._flows.set()
        if self._server is None:
            await super().mend()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], None] | None = None,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self._flows.is_set():
                    self.stalls += 1
                await self._flows.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.losing and len(data) > 1:
                    data = data[: len(data) // 2]
                    self.lost += 1
                writer.write(data)
                await writer.drain()
                if count is not None:
                    count(len(data))
        writer.transport.abort()


@asynccontextmanager
async def faulty_proxy_to(port: int) -> AsyncIterator[FaultyProxy]:
    """Run such a relay to `port` for one test."""
    proxy = FaultyProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy._flows.set()
        await proxy.close()
