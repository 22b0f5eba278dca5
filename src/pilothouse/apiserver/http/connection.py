"""How a connection reads: bytes into requests, one after the other, with a bound on each thing a peer may send."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any, Final, cast

from pilothouse.apiserver.http.answering import Answering, Phase, Shared
from pilothouse.apiserver.http.answers import CONTINUE, plain_refusal
from pilothouse.apiserver.http.bodies import ChunkedBody, PlainBody, TooLarge
from pilothouse.apiserver.http.heads import Head, Malformed
from pilothouse.apiserver.http.streams import Transport
from pilothouse.apiserver.model import Peer, refusal
from pilothouse.kinds.status import too_large

__all__ = ["HttpConnection", "peer_of"]

_END: Final = b"\r\n\r\n"
_BARE_FEED: Final = re.compile(rb"(?<!\r)\n")
_MAX_DISCARDED: Final = 64 << 20
_REQUESTS_A_TURN: Final = 16
"""After which other connections have theirs."""


class HttpConnection(Answering, asyncio.Protocol):
    """One connection of HTTP/1.1. Requests that come while one is answered wait, so answers are in order."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._scanned = 0
        """Bytes of the buffer in which no head ends."""
        self._begun = False
        """Whether the time for the present head runs."""
        self._stopped = False
        """Whether reading is paused."""
        self._head: Head | None = None
        self._body: PlainBody | ChunkedBody | None = None
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        self._transport = cast("Transport", transport)
        if len(shared.connections) >= shared.limits.max_connections or shared.closing:
            self._phase = Phase.GONE
            self._transport.abort()
            return
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=shared.limits.write_high_bytes)
        self._peer = peer_of(transport)
        self.deadline = shared.monotonic() + shared.limits.head_seconds
        shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.GONE
        self._rest = self._body = None
        self._buffer = b""
        self._shared.leave(self)
        if self._sink is not None:
            self._sink.drop()
        self._gate.leave()
        if self._duplex is not None:
            self._duplex.feed_eof()
        self._cancel()

    def eof_received(self) -> bool:
        if self._phase == Phase.UPGRADED and self._duplex is not None:
            self._duplex.feed_eof()
            return self._transport.can_write_eof()  # half-closed connections go on, where there are such
        return False

    def pause_writing(self) -> None:
        self._gate.paused = True

    def resume_writing(self) -> None:
        self._gate.open()
        if self._rest is not None:
            self._pump(self._rest)
        if self._buffer:
            self._advance()

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase == Phase.HEAD:
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()
        elif phase == Phase.BODY:
            self._feed(data)
        elif phase == Phase.BUSY:
            self._buffer += data
            self._stop_reading()
        elif phase == Phase.UPGRADED:
            self._pass_on(data)
        elif phase == Phase.REFUSED:
            self._discarded += len(data)
            if self._discarded > _MAX_DISCARDED:
                self._transport.abort()

    def _pass_on(self, data: bytes) -> None:
        if self._duplex is not None:
            self._duplex.feed(data)

    def _stop_reading(self) -> None:
        if not self._stopped and len(self._buffer) > self._shared.limits.max_pipelined_bytes:
            self._stopped = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._stopped and not self._transport.is_closing():
            self._stopped = False
            self._transport.resume_reading()

    def _advance(self) -> None:
        """Begin requests as long as those before them are answered and the peer takes the answers."""
        turns = 0
        while self._phase == Phase.HEAD and self._buffer and not self._gate.paused:
            if turns == _REQUESTS_A_TURN:
                self._stop_reading()
                self._shared.loop.call_soon(self._advance)
                return
            turns += 1
            if not self._next():
                self._resume_reading()
                return
        if self._phase == Phase.HEAD and self._gate.paused:
            self._stop_reading()
        elif len(self._buffer) <= self._shared.limits.max_pipelined_bytes:
            self._resume_reading()

    def _next(self) -> bool:
        """Begin one request; return whether there was one."""
        buffer, shared = self._buffer, self._shared
        if buffer[0] == 13:  # empty lines before a request are let pass: RFC 9112, 2.2
            while buffer.startswith(b"\r\n"):
                buffer = buffer[2:]
            self._buffer, self._scanned = buffer, 0
        end = buffer.find(_END, self._scanned)
        if end < 0 or end > shared.limits.max_head_bytes:
            self._partial(buffer, end)
            return False
        self._scanned, self._begun = 0, False
        try:
            head = shared.heads.read(buffer[:end])
        except Malformed as error:
            self._refuse(plain_refusal(error.status, str(error)))
            return False
        self._buffer = buffer[end + 4 :]
        if head.fields.length or head.fields.chunked:
            self._begin_body(head)
        else:
            self._handle(head, b"")
        return True

    def _partial(self, buffer: bytes, end: int) -> None:
        """Wait for the rest of a head, unless it can be none of ours."""
        limits = self._shared.limits
        if end >= 0 or len(buffer) > limits.max_head_bytes:
            self._refuse(plain_refusal(431, "request headers too long"))
        elif _BARE_FEED.search(buffer, self._scanned):
            self._refuse(plain_refusal(400, "bare line feed"))
        else:
            if not self._begun:
                self._begun = True
                self.deadline = self._shared.monotonic() + limits.head_seconds
            self._scanned = max(len(buffer) - 3, 0)

    def _begin_body(self, head: Head) -> None:
        limits, fields = self._shared.limits, head.fields
        length = fields.length or 0
        if length > limits.max_body_bytes:
            self._refuse_body(head)
            return
        self._head = head
        self._body = ChunkedBody(limits.max_body_bytes) if fields.chunked else PlainBody(length)
        self._phase = Phase.BODY
        self.deadline = self._shared.monotonic() + limits.body_seconds
        received, self._buffer = self._buffer, b""
        if received:
            self._take(received)
        if fields.expects and head.minor and self._phase == Phase.BODY:
            self._transport.write(CONTINUE)

    def _feed(self, data: bytes) -> None:
        self._take(data)
        if self._buffer or self._stopped:
            self._advance()

    def _take(self, data: bytes) -> None:
        """Take bytes of a body and, when it is whole, answer; the bytes after it go to the buffer."""
        head, body = self._head, self._body
        if head is None or body is None:
            return
        try:
            rest = body.feed(data)
        except Malformed as error:
            self._refuse(plain_refusal(error.status, str(error)))
        except TooLarge:
            self._refuse_body(head)
        else:
            if rest is not None:
                self._buffer = rest
                self._head = self._body = None
                self._handle(head, body.whole())

    def _refuse_body(self, head: Head) -> None:
        limit = self._shared.limits.max_body_bytes
        answer = refusal(too_large(f"limit is {limit}"))
        body = bytes(answer.body)  # type: ignore[arg-type]  # a refusal's is bytes
        start = self._start(head._replace(persistent=False), answer, len(body), self._shared.monotonic())
        self._refuse(b"".join((*start, body)))

    def _refuse(self, answer: bytes) -> None:
        """Answer what is no request, and close."""
        self._transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Throw away what the peer still sends: closing at once would reset it before the answer is read."""
        self._phase = Phase.REFUSED
        self._buffer = b""
        self._head = self._body = None
        self.deadline = self._shared.monotonic() + self._shared.limits.linger_seconds
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume_reading()

    def expire(self, now: float) -> None:
        """Close a connection whose time is over: flushing what a peer takes, at once where it takes nothing."""
        if self._gate.paused or self._phase == Phase.CLOSING or self._rest is not None:
            self._transport.abort()
            return
        self._phase = Phase.CLOSING
        self.deadline = now + self._shared.limits.linger_seconds
        self._transport.close()

    def shut_down(self) -> None:
        """Close as soon as what is begun is answered; streams end now."""
        self._ending = True
        if self._phase in {Phase.HEAD, Phase.REFUSED}:
            self._phase = Phase.CLOSING
            self._transport.close()
        elif self._phase == Phase.BUSY and self._sink is not None:
            self._cancel()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Return who is at the other end, with the certificate shown."""
    name = transport.get_extra_info("peername")
    address = name[0] if isinstance(name, tuple) else ""
    tls: ssl.SSLObject | Any = transport.get_extra_info("ssl_object")
    if tls is None:
        return Peer(address, None, secure=False)
    return Peer(address, tls.getpeercert(binary_form=True), secure=True)
