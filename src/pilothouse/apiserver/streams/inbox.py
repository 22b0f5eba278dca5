"""Bytes on their way from a connection to one reader, with a bound that pushes back on the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Inbox"]

LIMIT: Final = 1 << 18
"""Bytes that may wait for the reader before the connection is not read on."""


class Inbox:
    """What came for one stream. One task writes, one reads; both on one event loop.

    consumed: called with the number of bytes that the reader took.
    """

    def __init__(self, limit: int = LIMIT, consumed: Callable[[int], None] | None = None) -> None:
        self._limit = limit
        self._consumed = consumed
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._dropped = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """Whether more waits than may; a peer that keeps to its window never gets there."""
        return self._size > self._limit

    def feed(self, data: bytes) -> None:
        """Add bytes; after the end, or where nobody reads, they are let go."""
        if not data or self._ended:
            return
        if self._dropped:
            self._tell(len(data))
            return
        self._parts.append(data)
        self._size += len(data)
        self._filled.set()
        if self.full:
            self._room.clear()

    def end(self) -> None:
        """Say that nothing follows."""
        self._ended = True
        self._filled.set()

    def drop(self) -> None:
        """Let go what waits and what comes: nobody reads any more."""
        self._dropped = True
        size, self._size = self._size, 0
        self._parts.clear()
        self._tell(size)
        self._room.set()

    async def room(self) -> None:
        """Wait until more may be added."""
        await self._room.wait()

    async def read(self) -> bytes:
        """Wait for bytes; empty at the end."""
        while not self._parts:
            if self._ended or self._dropped:
                return b""
            self._filled.clear()
            await self._filled.wait()
        data = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
        self._parts.clear()
        self._size = 0
        self._room.set()
        self._tell(len(data))
        return data

    def _tell(self, count: int) -> None:
        if count and self._consumed is not None:
            self._consumed(count)
