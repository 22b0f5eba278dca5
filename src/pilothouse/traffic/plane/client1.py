"""A client's connection that speaks HTTP/1.1: heads in, one exchange at a time, responses out (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pilothouse.traffic.plane.bodies import Http1Sink, Http1Source, Sink
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.exchange import Exchange
from pilothouse.traffic.plane.heads import HEAD_END
from pilothouse.traffic.plane.http import Body, Refused, Request, Response
from pilothouse.traffic.plane.reactor import HANGUP, IN, OUT, Timed
from pilothouse.traffic.plane.tunnels import End, WireEnd
from pilothouse.traffic.plane.wires import Buffer, Gone, Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["PREFACE", "Client1", "response_head"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 says first."""

_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
_STATUS_LINES: dict[tuple[int, bytes], bytes] = {}


def response_head(response: Response, request: Request | None, is_persistent: bool) -> bytes:
    """Return a response's head for HTTP/1.1. request: what it answers, None where that could not be read."""
    key = (response.status, response.reason)
    line = _STATUS_LINES.get(key)
    if line is None:
        line = b"HTTP/1.1 %d %b\r\n" % key
        if len(_STATUS_LINES) < 256:
            _STATUS_LINES[key] = line
    known = response.lines
    lines = [line, known] if known is not None else [line, *[b"%b: %b\r\n" % field for field in response.fields]]
    minor = request.minor if request is not None else 1
    body = response.body
    if response.status == 101:
        lines.append(b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % response.upgrade)
        return b"".join(lines)
    if body is Body.LENGTH:
        lines.append(b"content-length: %d\r\n" % response.length)
    elif body is Body.NONE:
        is_head = request is not None and request.method == b"HEAD"
        if not is_head and response.status >= 200 and response.status not in {204, 304}:
            lines.append(b"content-length: 0\r\n")
    elif body is not Body.CLOSE and minor:
        lines.append(b"transfer-encoding: chunked\r\n")
    if not is_persistent and response.status >= 200:
        lines.append(b"connection: close\r\n")
    elif not minor:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


class Client1(Timed):
    """One connection: what came of the next head, and the exchange that goes on."""

    __slots__ = (
        "_body",
        "_count",
        "_exchange",
        "_inbox",
        "_is_closing",
        "_is_persistent",
        "_lingered",
        "_request",
        "_searched",
        "_worker",
        "peer",
        "wire",
    )

    def __init__(self, worker: Worker, wire: Wire, peer: Peer, inbox: bytes = b"") -> None:
        super().__init__()
        self._worker = worker
        self.wire = wire
        self.peer = peer
        self._inbox = bytearray(inbox)
        self._searched = 0
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._body: Http1Source | None = None
        self._is_persistent = True
        self._is_closing = False
        self._lingered = 0
        self._count = 0

    def begin(self) -> None:
        """Take up the connection; its wire tells us of its events already."""
        self._worker.clients.add(self)
        self._worker.reactor.arm(self, self._worker.reactor.now + self.peer.scope.limits.head_seconds)
        if self._inbox:
            self._search(b"")
        if self.wire.pending:
            self._worker.reactor.soon(self._read_again)

    # Events

    def on_event(self, events: int) -> None:
        exchange = self._exchange
        if exchange is None:
            if self._is_closing:
                self._linger(events)
                return
            if events & OUT:
                if not self._flushed():
                    return
                self.wire.want_read(True)
                self._resume()
            elif events & (IN | HANGUP):
                self._read()
            return
        self._during(exchange, events)

    def _during(self, exchange: Exchange, events: int) -> None:
        if events & OUT:
            exchange.on_client_writable()
            if self._exchange is not exchange:
                return
        if events & IN and not exchange.on_client_readable() and self._exchange is exchange:
            self.wire.want_read(False)  # the next request waits, or the client says nothing more
            if self.wire.has_ended():
                exchange.half_closed()
        if events & HANGUP and self._exchange is exchange:
            self._gone()

    def _flushed(self) -> bool:
        try:
            return self.wire.flush()
        except Gone:
            self._close()
            return False

    def _read(self) -> None:
        if self.wire.blocked:
            self.wire.pause()  # who takes no answers gets to ask nothing more
            return
        try:
            came = self.wire.receive(self._worker.reactor.head_scratch)
        except Gone:
            self._close()
            return
        if came is None:
            return
        if not came:
            self._close()
            return
        self._search(bytes(came))
        if self._exchange is None and not self._is_closing and self.wire.pending:
            self._worker.reactor.soon(self._read_again)

    def _read_again(self) -> None:
        if self._exchange is None and not self._is_closing and not self.wire.is_closed:
            self._read()

    def _search(self, came: bytes) -> None:
        """Look for the end of a head in what came."""
        inbox = self._inbox
        if inbox:
            inbox += came
            data = bytes(inbox)
        else:
            data = came
        if data.startswith(b"\r\n"):
            data = data[2:]
        end = data.find(HEAD_END, max(0, self._searched - 3))
        limits = self.peer.scope.limits
        if (end < 0 and len(data) > limits.head_bytes) or end > limits.head_bytes:
            self._refuse(Refused(431, "head", "the request's head is too large"))
        elif end < 0:
            self._incomplete(data)
        else:
            inbox.clear()
            self._searched = 0
            self._begin(data[: end + 4], data[end + 4 :])

    def _incomplete(self, data: bytes) -> None:
        limits, reactor = self.peer.scope.limits, self._worker.reactor
        if _BARE.search(data, max(0, self._searched - 1)) or data[:1] < b"!":
            if data:
                self._refuse(Refused(400, "head", "malformed head"))
            return
        if not self._inbox or self._searched == 0:
            reactor.arm(self, min(self.deadline, reactor.now + limits.head_seconds))
        self._inbox[:] = data
        self._searched = len(data)

    def _begin(self, head: bytes, rest: bytes) -> None:
        worker = self._worker
        if head == PREFACE[: len(head)] and worker.upgrade_to_http2(self, head + rest):
            return
        try:
            request = self.peer.scope.reader.request(head)
        except Refused as error:
            self._refuse(error)
            return
        self._count += 1
        limits = self.peer.scope.limits
        most = limits.requests_per_connection
        self._is_persistent = request.persistent and not worker.is_draining and not (most and self._count >= most)
        self._request = request
        self._body = Http1Source(self.wire, request.body, request.length, rest)
        if request.body is Body.NONE and rest:
            self._inbox[:] = rest
            self._body.beyond = b""
        self.deadline = float("inf")
        exchange = self._exchange = Exchange(worker, self, request)
        exchange.begin()

    # What the exchange asks

    def body(self) -> Http1Source:
        """Return the request's body."""
        assert self._body is not None  # noqa: S101
        return self._body

    def send_head(self, response: Response, pieces: Sequence[Buffer], is_whole: bool) -> None:
        """Write a response's head with the first of its body."""
        request = self._request
        if response.body is Body.CLOSE or (self._body is not None and not self._body.done and is_whole):
            self._is_persistent = False
        if response.body in {Body.CHUNKED, Body.FRAMES} and request is not None and not request.minor:
            self._is_persistent = False
        head = response_head(response, request, self._is_persistent)
        if pieces:
            self.wire.counters.bytes_copied += sum(map(len, pieces))
            self.wire.send([head, *pieces])
        else:
            self.wire.send([head])

    def send_interim(self, response: Response) -> None:
        """Write an interim response, which clients of HTTP/1.0 do not know."""
        if self._request is not None and self._request.minor:
            self.wire.send([response_head(response, self._request, True)])

    def is_encoded_for(self, response: Response) -> bool:
        """Return whether the bytes are wanted without their framing: by clients of HTTP/1.0."""
        return response.body is Body.CHUNKED and self._request is not None and not self._request.minor

    def sink(self, response: Response) -> Sink:
        """Return where the rest of the response goes."""
        minor = self._request.minor if self._request is not None else 1
        return Http1Sink(self.wire, is_encoded=response.body is Body.FRAMES and minor > 0)

    def watch(self, when: float) -> None:
        """Look at the exchange's deadlines then."""
        self._worker.reactor.arm(self, when)

    def finish(self, is_clean: bool) -> None:
        """Go on with the next request, or close."""
        self._exchange = None
        body = self._body
        if not is_clean:
            self._worker.clients.discard(self)
            self.wire.abort()
            return
        if body is not None and not body.done:
            self._close_softly()
            return
        if not self._is_persistent:
            self._close_softly()
            return
        if body is not None and body.beyond:
            self._inbox[:] = body.beyond
        self._body = self._request = None
        reactor = self._worker.reactor
        reactor.arm(self, reactor.now + self.peer.scope.limits.idle_seconds)
        self.wire.want_read(True)
        if self._inbox or self.wire.pending:
            reactor.soon(self._resume)

    def _resume(self) -> None:
        if self._exchange is not None or self._is_closing or self.wire.is_closed:
            return
        if self.wire.blocked:
            return  # until there is room
        if self._inbox:
            self._search(b"")
        elif self.wire.pending:
            self._read()

    def upgraded(self, upstream: End) -> None:
        """Pass bytes both ways from now on."""
        self._exchange = None
        self.deadline = float("inf")
        self._worker.clients.discard(self)
        self._worker.tunnel(self.peer.scope.limits, WireEnd(self.wire, bytes(self._inbox)), upstream)

    # Ends

    def on_deadline(self) -> None:
        exchange, now = self._exchange, self._worker.reactor.now
        if exchange is not None:
            exchange.on_deadline(now)
            if self._exchange is exchange:
                self._worker.reactor.arm(self, exchange.next_deadline())
        elif self._is_closing or not self._inbox:
            self._close()
        else:
            self._refuse(Refused(408, "slow client", "the request's head came too slowly"))

    def on_crash(self) -> None:
        self._gone()

    def drain(self) -> None:
        """Close now if nothing goes on, else after the response."""
        self._is_persistent = False
        if self._exchange is None and not self._inbox and not self._is_closing:
            self._close_softly()

    def _refuse(self, error: Refused) -> None:
        """Answer a head that could not be read, and close."""
        self._worker.refused(error, None)
        self._is_persistent = False
        response, body = self._worker.refusal(error, None, None)
        response.body, response.length = Body.LENGTH, len(body)
        try:
            self.wire.send([response_head(response, None, False), body])
        except Gone:
            self._close()
            return
        self._close_softly()

    def _close_softly(self) -> None:
        """Say that nothing more comes, and let the client read before it is cut off (RFC 9112, 9.6)."""
        self._is_closing = True
        self._inbox.clear()
        self._worker.reactor.arm(self, self._worker.reactor.now + _LINGER_SECONDS)
        if not self.wire.blocked:
            self.wire.end_writing()
        self.wire.want_read(True)

    def _linger(self, events: int) -> None:
        try:
            if events & OUT:
                if not self.wire.flush():
                    return
                self.wire.end_writing()
            came = self.wire.receive()
            while came:
                self._lingered += len(came)
                if self._lingered > _LINGER_BYTES:
                    break
                came = self.wire.receive()
            if came is None:
                return
        except Gone:
            pass
        self._close()

    def _gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        self._close()

    def _close(self) -> None:
        self.deadline = float("inf")
        self._worker.clients.discard(self)
        self.wire.close()
