"""One HTTP/1.1 connection: a request at a time, its answer whole or as a stream, and upgrades (RFC 9112)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final, cast

import httptools

from .errors import TransportError, TransportTimeout
from .httpstream import HttpStream, Inbox, UpgradedConnection
from .transport import Answer

__all__ = ["HttpConnection"]

_MAX_HEAD: Final = 1 << 18
MAX_BODY: Final = 2 << 30
"""Bytes of the longest answer that is read as a whole, unpacked."""
_GZIP: Final = 31
_WRITE_HIGH: Final = 1 << 20
_MAX_NAMES: Final = 256


_names: Final[dict[bytes, str]] = {}
"""Names of headers as they come, and in lower case."""


def _lowered(name: bytes) -> str:
    made = name.decode("latin-1").lower()
    if len(_names) < _MAX_NAMES:
        _names[name] = made
    return made


class HttpConnection(asyncio.Protocol):
    """A connection to a server, made by `loop.create_connection`.

    `exchange` sends one request; `reusable` says whether another can follow, `answered` whether anything of the
    answer to the last one came.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Answer] | None = None
        self._inbox: Inbox | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._limit = 0.0
        self._idle: float | None = None
        self._last = 0.0
        self._stream = False
        self._upgraded = False
        self._sized = self._headed = False
        self._headers: list[tuple[str, str]] = []
        self._head_size = 0
        self._parts: list[bytes] = []
        self._body_size = 0
        self._unpack: zlib._Decompress | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._lost: BaseException | None = None
        self.closed = False
        self.reusable = False
        self.answered = False
        self.idle_since = 0.0
        self.uses = 0
        self._on_lost: list[Callable[[], object]] = []
        self._is_lost = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        if self._upgraded and self._inbox is not None:
            self._inbox.feed(data)
            return
        if self._idle is not None:
            self._last = self._loop.time()
        if self._waiting is None and self._inbox is None:
            # Nobody asked: a server that says goodbye, or one that has lost count.
            self.abort()
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._become_duplex(data[upgrade.args[0] :])
        except (httptools.HttpParserError, zlib.error) as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
            self._break(TransportError(f"{self._where}: the answer is no HTTP: {cause}"))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed, self.reusable, self._lost = True, False, exc
        self._stop_timer(forget=True)
        self._is_lost = True
        calls, self._on_lost = self._on_lost, []
        for call in calls:
            call()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if exc is None and not self._sized and not self._upgraded and self._in_body():
            self.on_message_complete()  # a body that lasts until the end of the connection
        why = f": {exc}" if exc is not None else ""
        error = TransportError(f"{self._where}: the server closed the connection before the answer was complete{why}")
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.end(None if self._upgraded and exc is None else error)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._waiting is None:
            raise ValueError("an answer that nobody asked for")
        self._headers, self._head_size, self._sized, self._headed = [], 0, False, False
        self._parts, self._body_size, self._unpack = [], 0, None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD:
            raise ValueError(f"over {_MAX_HEAD} bytes of headers")
        lowered = _names.get(name) or _lowered(name)
        self._headers.append((lowered, value.decode("latin-1")))
        if lowered in {"content-length", "transfer-encoding"}:
            self._sized = True
        elif lowered == "content-encoding" and value.lower() == b"gzip":
            self._unpack = zlib.decompressobj(_GZIP)

    def on_headers_complete(self) -> None:
        self._headed = True
        status = self._parser.get_status_code()
        if self._stream and 200 <= status < 300 and self._waiting is not None:
            self._inbox = Inbox(self)
            unpack = self._unpack.decompress if self._unpack is not None else None
            stream = HttpStream(self._inbox, self, unpack)
            self._deadline = None
            self._last = self._loop.time()
            self._resolve(Answer(status, self._headers, stream=stream))
            self._watch_silence()

    def on_body(self, body: bytes) -> None:
        if self._inbox is not None:
            self._inbox.feed(body)
            return
        if self._unpack is not None:
            body = self._unpack.decompress(body, MAX_BODY - self._body_size + 1)
        self._body_size += len(body)
        if self._body_size > MAX_BODY:
            raise ValueError(f"a body of over {MAX_BODY} bytes; list in pages")
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headed = False
            return
        self.reusable = not self.closed and self._sized and self._parser.should_keep_alive()
        self._stop_timer()
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            inbox.end()
            return
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._resolve(Answer(status, self._headers, body))

    # What the pool calls.

    async def exchange(self, data: bytes, *, stream: bool, timeout: float, idle: float | None) -> Answer:  # noqa: ASYNC109
        """Send a request, head and body, and wait for its answer; of a stream only for its head.

        timeout: seconds for that. idle: seconds that a stream may be silent. Raises TransportError.
        """
        if self._transport is None or self.closed or self._transport.is_closing():
            raise TransportError(f"{self._where}: the connection is closed already")
        self.uses += 1
        self.reusable = self.answered = False
        self._stream, self._idle, self._limit = stream, idle if stream else None, timeout
        self._deadline = self._loop.time() + timeout
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._check)
        self._waiting = waiting = self._loop.create_future()
        self._transport.write(data)
        try:
            answer: Answer = await waiting
        except BaseException:
            if not self.reusable:
                self.abort()
            raise
        return answer

    def abort(self) -> None:
        """Close at once."""
        self.closed, self.reusable = True, False
        self._stop_timer(forget=True)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Send what is buffered and close."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def pause_reading(self) -> None:
        """Take no more bytes for now."""
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._transport is not None and not self.closed:
            self._last = self._loop.time()
            self._transport.resume_reading()

    def when_lost(self, call: Callable[[], object]) -> None:
        """Call this once when the connection is gone, at once if it is."""
        if self._is_lost:
            call()
        else:
            self._on_lost.append(call)

    def send(self, data: bytes) -> None:
        """Write bytes after an upgrade."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the peer has taken enough."""
        while self._paused and not self.closed:
            if self._writable is None or self._writable.done():
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)

    # What happens inside.

    def _in_body(self) -> bool:
        return self._headed and (self._inbox is not None or self._waiting is not None)

    def _resolve(self, answer: Answer) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _become_duplex(self, rest: bytes) -> None:
        status = self._parser.get_status_code()
        if status != 101:
            self._break(TransportError(f"{self._where}: asked to upgrade the connection with status {status}"))
            return
        self._upgraded = True
        self._stop_timer(forget=True)
        self._inbox = inbox = Inbox(self)
        if rest:
            inbox.feed(rest)
        self._resolve(Answer(status, self._headers, duplex=UpgradedConnection(inbox, self)))

    def _break(self, error: TransportError) -> None:
        waiting, self._waiting = self._waiting, None
        inbox, self._inbox = self._inbox, None
        self.abort()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        if inbox is not None:
            inbox.end(error)

    def _stop_timer(self, *, forget: bool = False) -> None:
        """Let the timer run out: the next request most often comes before, and needs one again."""
        self._deadline, self._idle = None, None
        if forget and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._idle is not None:
            self._timer = self._loop.call_at(self._last + self._idle, self._check)

    def _check(self) -> None:
        """See whether time is over; timers are set once and look what they are for when they come."""
        self._timer = None
        if self._deadline is not None:
            due, said = self._deadline, f"no answer within {self._limit:g} s"
        elif self._idle is not None:
            if self._inbox is not None and self._inbox.paused:
                self._last = self._loop.time()  # it is us who do not read
            due, said = self._last + self._idle, f"nothing came on the stream for {self._idle:g} s"
        else:
            return
        if self._loop.time() >= due:
            self._break(TransportTimeout(f"{self._where}: {said}; the connection is given up"))
        else:
            self._timer = self._loop.call_at(due, self._check)
