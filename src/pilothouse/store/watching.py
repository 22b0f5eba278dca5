"""A watch of the embedded engine as an async iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from pilothouse.store.model import WatchResponse
from pilothouse.store.watchhub import Watcher

__all__ = ["EmbeddedWatch"]

_MAX_EVENTS = 1000


class EmbeddedWatch:
    """Waits for a hub's `Watcher` and hands out what it took, one response after the other."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._loop = asyncio.get_running_loop()
        self._taken: deque[WatchResponse] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._cancelled = False
        watcher.on_ready = self._wake

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchResponse:
        while not self._taken:
            self._taken.extend(self.watcher.take(_MAX_EVENTS))
            if self._taken:
                break
            if self.watcher.closed or self._cancelled:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._taken.popleft()

    def request_progress(self) -> None:
        self.watcher.request_progress()

    async def cancel(self) -> None:
        self._cancelled = True
        self._taken.clear()
        if not self.watcher.closed:
            self.watcher.cancel()
        self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
