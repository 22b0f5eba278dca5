"""What changes, given to whoever listens; each listener has a bounded queue and is told when it lost something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Literal

from pilothouse.node.runtime import Event

__all__ = ["Events"]

_MAX_WAITING = 4096
_Type = Literal["Created", "Started", "Stopped", "Deleted", "SandboxStopped", "Overflow"]


class Events:
    """The listeners of a runtime."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def tell(self, kind: _Type, sandbox_id: str, container_id: str = "") -> None:
        """Tell all listeners; one that is full loses what it has and gets "Overflow" in its place."""
        event = Event(type=kind, sandbox_id=sandbox_id, container_id=container_id, timestamp=time.time_ns())
        for queue in self._queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(Event(type="Overflow", timestamp=event.timestamp))
            queue.put_nowait(event)

    def listen(self) -> AsyncIterator[Event]:
        """Return what is told from this call on, until `close`."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_MAX_WAITING)
        self._queues.add(queue)
        return self._drain(queue)

    def close(self) -> None:
        """End all listeners."""
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self._queues.clear()

    async def _drain(self, queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)
