"""A copy of the store over the API, for whoever may do everything: what is backed up of a running server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

from pilothouse.apiserver.model import Answer, Request, Sink, StreamingResponse
from pilothouse.kinds.status import Details, TooManyRequests, generic
from pilothouse.store import Store
from pilothouse.store.etcd.snapshot_file import filling

__all__ = ["SNAPSHOT_PATH", "Snapshots", "framed"]

SNAPSHOT_PATH: Final = "/pilothouse/snapshot"
"""Granted to nobody by name: only who may get every path that is no resource, as `cluster-admin` does, may get it."""
_NOT_ALLOWED: Final = 405
_AGAIN_SECONDS: Final = 10


async def framed(store: Store) -> AsyncIterator[bytes]:
    """Yield a store's snapshot, filled up to whole sectors, and its SHA-256, as `snapshot_file.save` takes it."""
    digest, size = hashlib.sha256(), 0
    async for block in store.snapshot():
        digest.update(block)
        size += len(block)
        yield block
    rest = filling(size)
    digest.update(rest)
    yield rest
    yield digest.digest()


class Snapshots:
    """Answers requests for a copy of the store, one after the other: each takes disk space while it is sent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    def answer(self, request: Request) -> Answer:
        """Answer a request for SNAPSHOT_PATH. Raises ApiStatus."""
        if request.method != "GET":
            raise generic(_NOT_ALLOWED)
        if self._turn.locked():
            raise TooManyRequests(
                "another copy of the store is being sent", Details(retry_after_seconds=_AGAIN_SECONDS)
            )
        return StreamingResponse(self._send, content_type="application/octet-stream")

    async def _send(self, sink: Sink) -> None:
        async with self._turn:
            async for block in framed(self._store):
                sink.write(block)
                await sink.drain()
                if sink.closed:
                    return
