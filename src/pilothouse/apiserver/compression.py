"""Gzip for large answers, in a thread so that the loop goes on."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from pilothouse.apiserver.model import Piece, Request, Response, Sink, StreamingResponse

__all__ = ["compressed", "wants_gzip"]

_LEAST = 128 * 1024
"""Bytes from which on compressing pays, as in kube-apiserver."""
_GZIP = 31
_LEVEL = 1
_HEADERS = (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))


def wants_gzip(request: Request) -> bool:
    """Whether the client takes gzip, and the answer may be large: watches and streams are never compressed."""
    info = request.info
    return (
        "gzip" in request.headers.get("accept-encoding", "")
        and info is not None
        and info.verb in {"get", "list"}
        and not info.subresource
    )


async def compressed(answer: Response | StreamingResponse) -> Response | StreamingResponse:
    """Return the answer compressed, if it is large."""
    if isinstance(answer, StreamingResponse):
        run = answer.run

        async def run_compressed(sink: Sink) -> None:
            packed = _GzipSink(sink)
            await run(packed)
            await packed.finish()

        answer.run = run_compressed
        answer.headers = (*answer.headers, *_HEADERS)
        return answer
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    if len(body) < _LEAST or any(name == "Content-Encoding" for name, _ in answer.headers):
        return answer
    answer.body = await asyncio.get_running_loop().run_in_executor(None, _packed, body)
    answer.headers = (*answer.headers, *_HEADERS)
    return answer


def _packed(body: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


class _GzipSink:
    """Compresses what is written; it goes on when the writer waits for the peer."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._packer: Any = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._waiting: list[bytes] = []
        self._size = 0

    @property
    def buffered(self) -> int:
        return self._size + self._sink.buffered

    @property
    def closed(self) -> bool:
        return self._sink.closed

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def write_piece(self, piece: Piece) -> None:
        self.write(piece.data)

    async def drain(self) -> None:
        if self._waiting:
            data, self._waiting, self._size = b"".join(self._waiting), [], 0
            loop = asyncio.get_running_loop()
            if packed := await loop.run_in_executor(None, self._packer.compress, data):
                self._sink.write(packed)
        await self._sink.drain()

    async def finish(self) -> None:
        """Send what is left."""
        await self.drain()
        self._sink.write(self._packer.flush())
