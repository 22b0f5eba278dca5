"""The handler called from within this process: same requests and answers, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.apiserver.http.answering import failed
from pilothouse.apiserver.http.answers import BODILESS
from pilothouse.apiserver.http.heads import Malformed, split_target
from pilothouse.apiserver.http.limits import HttpLimits
from pilothouse.apiserver.http.pipes import MemoryDuplex, Pipe
from pilothouse.apiserver.model import (
    Answer,
    Duplex,
    Handler,
    Peer,
    Piece,
    Request,
    Response,
    StreamingResponse,
    UpgradeResponse,
    User,
    refusal,
)
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import BadRequest, too_large

__all__ = ["InProcessAnswer", "InProcessStream", "InProcessTransport"]

_log = get_logger(__name__)

_LOCAL: Final = Peer()


class _MemorySink:
    """The writing end of a stream; what is not read yet counts as buffered."""

    __slots__ = ("_pipe", "closed")

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.closed = False

    @property
    def buffered(self) -> int:
        return self._pipe.size

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._pipe.feed(data)

    def write_piece(self, piece: Piece) -> None:
        self.write(piece.data)

    async def drain(self) -> None:
        await self._pipe.drain()


class InProcessStream(AsyncIterator[bytes]):
    """The pieces of a streamed answer as they were written. Closing it, or cancelling who waits for a piece, ends it.

    Raises ConnectionError at the next piece where the answer broke off.
    """

    def __init__(self, answer: StreamingResponse, high: int) -> None:
        self._pipe = Pipe(high)
        self._sink = _MemorySink(self._pipe)
        self._task = asyncio.get_running_loop().create_task(_write(answer, self._sink, self._pipe))

    async def __anext__(self) -> bytes:
        try:
            piece = await self._pipe.read_piece()
        except asyncio.CancelledError:
            self._end()
            raise
        if piece:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the answer and wait until what writes it has ended."""
        self._end()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([self._task])

    def _end(self) -> None:
        self._sink.closed = True
        self._pipe.drop()
        self._task.cancel()

    def __del__(self) -> None:
        # Nobody can read on: without this its writer would wait for ever.
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.get_loop().is_closed():
            self._end()


async def _write(answer: StreamingResponse, sink: _MemorySink, pipe: Pipe) -> None:
    try:
        await answer.run(sink)
    except asyncio.CancelledError:
        pipe.end(ConnectionResetError("the stream was ended before its end"))
        raise
    except Exception as error:  # noqa: BLE001  # who reads gets to know
        _log.exception("stream failed")
        pipe.end(ConnectionResetError(f"the stream broke off: {error}"))
    else:
        pipe.end()
    finally:
        sink.closed = True


@dataclass(slots=True)
class InProcessAnswer:
    """What came back. Header names in lower case. For streams `stream` is set, for upgrades `duplex`, else `body`."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = b""
    stream: InProcessStream | None = None
    duplex: Duplex | None = None

    def header(self, name: str, default: str = "") -> str:
        """Return the first value of a header, its name in lower case."""
        return next((value for found, value in self.headers if found == name), default)

    async def read(self) -> bytes:
        """Return the whole body, that of a stream when it has ended."""
        if self.stream is None:
            return self.body
        return b"".join([piece async for piece in self.stream])

    async def aclose(self) -> None:
        """End what goes on."""
        if self.stream is not None:
            await self.stream.aclose()
        if self.duplex is not None:
            self.duplex.abort()


class InProcessTransport:
    """Calls `handler` as the HTTP server would: same limit for bodies, same answers to failures."""

    def __init__(self, handler: Handler, *, limits: HttpLimits | None = None) -> None:
        self._handler = handler
        self._limits = limits or HttpLimits()
        self._tasks: set[asyncio.Task[None]] = set()

    async def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        user: User | None = None,
    ) -> InProcessAnswer:
        """Send one request. With a `user` it is that one's, and authentication is skipped.

        target: path, percent-encoded, and query. Raises nothing but CancelledError; cancelling cancels the handler.
        """
        pairs = tuple((name.lower(), value) for name, value in headers)
        try:
            path, query_text = split_target(target)
        except Malformed as error:
            return self._answer(method, refusal(BadRequest(str(error))))
        if len(body) > self._limits.max_body_bytes:
            return self._answer(method, refusal(too_large(f"limit is {self._limits.max_body_bytes}")))
        first = dict(reversed(pairs))
        request = Request(method, target, path, query_text, first, body, _LOCAL, pairs, user)
        try:
            answer = self._handler(request)
            if not isinstance(answer, Response | StreamingResponse | UpgradeResponse):
                answer = await answer
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets an answer
            answer = failed(method, path, error)
        return self._answer(method, answer)

    def _answer(self, method: str, answer: Answer) -> InProcessAnswer:
        pairs = [(name.lower(), value) for name, value in answer.headers]
        high = self._limits.write_high_bytes
        if isinstance(answer, UpgradeResponse):
            ours, theirs = MemoryDuplex.pair(high)
            self._keep(_run_upgrade(answer, theirs), theirs)
            return InProcessAnswer(101, pairs, duplex=ours)
        pairs.insert(0, ("content-type", answer.content_type))
        if method == "HEAD" or answer.status in BODILESS:
            return InProcessAnswer(answer.status, pairs)
        if isinstance(answer, StreamingResponse):
            return InProcessAnswer(answer.status, pairs, stream=InProcessStream(answer, high))
        body = answer.body
        return InProcessAnswer(answer.status, pairs, body if isinstance(body, bytes) else b"".join(body))

    def _keep(self, coroutine: Coroutine[Any, Any, None], end: MemoryDuplex) -> None:
        """Run the far end of an upgraded connection until it ends or ours is aborted."""
        task = asyncio.get_running_loop().create_task(coroutine)
        end.on_aborted = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run_upgrade(answer: UpgradeResponse, duplex: MemoryDuplex) -> None:
    try:
        await answer.run(duplex)
    except Exception:  # noqa: BLE001  # who reads gets to know
        _log.exception("upgraded connection failed")
        duplex.abort()
    finally:
        duplex.close()
