"""`/metrics` and `/health` of a store over plain HTTP/1.1, as monitoring asks for them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

import msgspec
from prometheus_client import Gauge

from pilothouse.foundation.metrics import CONTENT_TYPE, PROGRAM, Metrics
from pilothouse.store.engine import EmbeddedStore

__all__ = ["MetricsEndpoint"]

_SECONDS = 5.0
_MAX_REQUEST = 8192
_CONNECTIONS = 64


class MetricsEndpoint:
    """A small HTTP server as an async context manager: one request a connection, a few connections at a time.

    `address` is where it listens, once entered; `OSError` where it cannot.
    """

    def __init__(self, store: EmbeddedStore, host: str, port: int, metrics: Metrics = PROGRAM) -> None:
        self.address = (host, port)
        self._store = store
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._open = 0
        self._gauges: dict[str, Gauge] = {
            "revision": metrics.gauge("pilothouse_store_revision_current", "The newest revision."),
            "compact_revision": metrics.gauge("pilothouse_store_revision_compacted", "The last compaction's revision."),
            "keys": metrics.gauge("pilothouse_store_keys_count", "Keys that exist now."),
            "watchers": metrics.gauge("pilothouse_store_watchers_count", "Running watches."),
            "leases": metrics.gauge("pilothouse_store_leases_count", "Leases that exist now."),
            "db_size": metrics.gauge("pilothouse_store_disk_bytes", "Log and checkpoints on disk."),
            "db_size_in_use": metrics.gauge("pilothouse_store_data_bytes", "Keys, values and history held."),
            "quota": metrics.gauge("pilothouse_store_quota_bytes", "The most that may be held."),
            "raft_applied_index": metrics.gauge("pilothouse_store_index_applied", "The last log record applied."),
            "raft_index": metrics.gauge("pilothouse_store_index_logged", "The last log record written."),
        }

    def __str__(self) -> str:
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, *self.address, limit=_MAX_REQUEST)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            # A peer that is slow, says too much or goes away has no claim on an answer.
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_SECONDS):
                    if self._open <= _CONNECTIONS:
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(await self._respond(head.split(b"\r\n", 1)[0].split(b" ")))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    async def _respond(self, request: list[bytes]) -> bytes:
        method, path = (request[0], request[1].partition(b"?")[0]) if len(request) == 3 else (b"", b"")
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", b"only GET\n")
        if path == b"/metrics":
            status = await self._store.status()
            for name, gauge in self._gauges.items():
                gauge.set(getattr(status, name))
            return _response("200 OK", self._metrics.exposition(), CONTENT_TYPE, body=method == b"GET")
        if path == b"/health":
            errors = (await self._store.status()).errors
            found = msgspec.json.encode({"health": "false" if errors else "true", "reason": "; ".join(errors)})
            line = "503 Service Unavailable" if errors else "200 OK"
            return _response(line, found, "application/json", body=method == b"GET")
        return _response("404 Not Found", b"/metrics and /health are here\n")


def _response(status: str, content: bytes, kind: str = "text/plain; charset=utf-8", *, body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    return head.encode() + (content if body else b"")
