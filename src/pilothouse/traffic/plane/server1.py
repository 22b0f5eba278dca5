"""A connection to a backend that speaks HTTP/1.1: used for one request at a time, and kept for more."""

from __future__ import annotations

import errno
import math
import os
import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Http1Sink, Http1Source, Sink
from pilothouse.traffic.plane.heads import HEAD_END, HeadReader
from pilothouse.traffic.plane.http import UNKNOWN, Body, FieldList, Refused, Request, Response
from pilothouse.traffic.plane.reactor import HANGUP, IN, OUT, Reactor, Timed
from pilothouse.traffic.plane.tunnels import WireEnd
from pilothouse.traffic.plane.upstream import Answered, Outgoing
from pilothouse.traffic.plane.wires import Buffer, Counters, Gone, Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool

__all__ = ["Server1", "request_head"]

_HEAD_BYTES: Final = 65_536
_CONNECTING, _HANDSHAKE, _IDLE, _BUSY, _GONE = range(5)


def request_head(outgoing: Outgoing) -> bytes:
    """Return a request's head for HTTP/1.1."""
    request = outgoing.request
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (request.method, outgoing.target, outgoing.authority)]
    lines += [b"%b: %b\r\n" % field for field in outgoing.fields]
    if request.body is Body.LENGTH or (request.body is Body.NONE and request.method in {b"POST", b"PUT", b"PATCH"}):
        lines.append(b"content-length: %d\r\n" % max(request.length, 0))
    elif request.body is not Body.NONE:
        lines.append(b"transfer-encoding: chunked\r\n")
    if request.expects:
        lines.append(b"expect: 100-continue\r\n")
    if request.upgrade:
        lines.append(b"connection: upgrade\r\nupgrade: %b\r\n" % request.upgrade)
    lines.append(b"\r\n")
    return b"".join(lines)


def _framed(pieces: Sequence[Buffer], trailers: FieldList | None) -> Sequence[Buffer]:
    """Put the chunked coding on the first of a body, and end it where that is all."""
    framed: list[Buffer] = [b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) for piece in pieces if piece]
    if trailers is not None:
        framed += [b"0\r\n", *[b"%b: %b\r\n" % field for field in trailers], b"\r\n"]
    return framed


class Server1(Timed):
    """One connection. served: how many requests it has had."""

    __slots__ = (
        "_exchange",
        "_inbox",
        "_method",
        "_pool",
        "_reader",
        "_state",
        "_trouble",
        "endpoint",
        "served",
        "wire",
    )

    def __init__(
        self, reactor: Reactor, counters: Counters, reader: HeadReader, pool: Pool, state: EndpointState
    ) -> None:
        super().__init__()
        self._pool = pool
        self._reader = reader
        self._exchange: Answered | None = None
        self._inbox = b""
        self._method = b""
        self._trouble = ""
        self.endpoint = state
        self.served = 0
        family = socket.AF_INET6 if ":" in state.endpoint.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(reactor, sock, counters)
        self._state = _CONNECTING

    # Opening

    def open(self, exchange: Answered) -> None:
        """Connect for a request; it is told `on_connected` or `on_unreachable`, maybe before this returns."""
        self._exchange = exchange
        endpoint = self.endpoint.endpoint
        failed = self.wire.sock.connect_ex((endpoint.address, endpoint.port))
        self.wire.attach(self, OUT)
        if failed == 0:
            self._connected()
        elif failed == errno.EINPROGRESS:
            self.wire.reactor.arm(self, self.wire.reactor.now + self._pool.config.connect_timeout)
        else:
            self._unreachable(os.strerror(failed))

    def _connected(self) -> None:
        tls = self._pool.tls
        if tls is None:
            self._ready()
            return
        self._state = _HANDSHAKE
        reactor = self.wire.reactor
        reactor.arm(self, min(self.deadline, reactor.now + self._pool.config.connect_timeout))
        try:
            self.wire.secure(tls.wrap(self.wire.sock))
        except (OSError, ValueError) as error:
            self._unreachable(f"TLS: {error}")
            return
        self._shake()

    def _shake(self) -> None:
        sock = self.wire.sock
        tls = self._pool.tls
        assert isinstance(sock, ssl.SSLSocket) and tls is not None  # noqa: S101, PT018
        try:
            sock.do_handshake()
            tls.check(sock)
        except ssl.SSLWantReadError:
            self.wire.want(IN)
        except ssl.SSLWantWriteError:
            self.wire.want(OUT)
        except (OSError, ValueError) as error:
            self._unreachable(f"TLS: {error}")
        else:
            self._ready()

    def _ready(self) -> None:
        self.deadline = math.inf
        self._state = _IDLE
        self.wire.want(IN)
        exchange = self._exchange
        if exchange is not None:
            exchange.on_connected(self)
        else:
            self._pool.put_back(self)

    def _unreachable(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._drop()
        if exchange is not None:
            exchange.on_unreachable(self, reason)

    def forsake(self) -> None:
        """Connect for whoever needs it, the request is gone."""
        self._exchange = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is on its way."""
        return self._state == _BUSY

    def has_spoken(self) -> bool:
        """Whether the server has said something that was not read, such as why it takes no more."""
        try:
            return bool(self.wire.sock.recv(1, socket.MSG_PEEK)) if self.wire.is_raw else self.wire.pending
        except OSError:
            return False

    # One request

    def begin(
        self, exchange: Answered, outgoing: Outgoing, pieces: Sequence[Buffer], trailers: FieldList | None
    ) -> None:
        """Send a request's head with what there is of its body. Raises Gone."""
        self._exchange = exchange
        self._state = _BUSY
        self._method = outgoing.request.method
        self.deadline = math.inf
        self.served += 1
        head = request_head(outgoing)
        if outgoing.request.body is Body.FRAMES:
            pieces = _framed(pieces, trailers)
        if pieces:
            self.wire.counters.bytes_copied += sum(map(len, pieces))
            self.wire.send([head, *pieces])
        else:
            self.wire.send([head])

    def sink(self, request: Request) -> Sink:
        """Return where the rest of the request's body goes."""
        return Http1Sink(self.wire, is_encoded=request.body is Body.FRAMES)

    def source(self, response: Response, rest: bytes) -> Http1Source:
        """Return where the response's body comes from."""
        length = UNKNOWN if response.body is not Body.LENGTH else response.length
        return Http1Source(self.wire, response.body, length, rest, 502)

    def finish(self, is_reusable: bool) -> None:
        """Let go of the connection after a response."""
        self._exchange = None
        if self._state != _BUSY:
            return
        if not is_reusable or self.wire.blocked or self.wire.pending:
            self._drop()
            return
        self._state = _IDLE
        self.wire.want(IN)
        self._pool.put_back(self)

    def tunnelled(self, rest: bytes) -> WireEnd:
        """Give the connection to a tunnel. rest: what came behind the head."""
        return WireEnd(self.detach(), rest)

    def detach(self) -> Wire:
        """Give the connection to somebody else, for good."""
        self._exchange = None
        self._state = _GONE
        self.wire.reactor.release(self.wire.fd)
        self._pool.forget(self)
        return self.wire

    def abort(self) -> None:
        """End the connection in the middle of whatever it does."""
        self._exchange = None
        self._drop()

    def _drop(self) -> None:
        if self._state == _GONE:
            return
        self._state = _GONE
        self.deadline = math.inf
        self.wire.close()
        self._pool.forget(self)

    def on_deadline(self) -> None:
        if self._state in {_CONNECTING, _HANDSHAKE}:
            self._unreachable("timed out")
        elif self._state == _IDLE:
            self._drop()

    def on_crash(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._drop()
        if exchange is not None:
            exchange.on_lost(self, "internal error", False)

    def on_event(self, events: int) -> None:
        state = self._state
        if state == _BUSY:
            self._busy(events)
        elif state == _CONNECTING:
            failed = self.wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                self._unreachable(os.strerror(failed))
            else:
                self._connected()
        elif state == _HANDSHAKE:
            self._shake()
        elif state == _IDLE:
            self._idle()

    def _idle(self) -> None:
        """Let go: the server speaks unasked, or closes."""
        if self.wire.is_raw or self._speaks():
            self._drop()

    def _speaks(self) -> bool:
        try:
            return self.wire.receive() is not None  # None: a session ticket of TLS, no data
        except Gone:
            return True

    def _busy(self, events: int) -> None:
        exchange = self._exchange
        if exchange is None:
            self._drop()
            return
        if events & OUT:
            exchange.on_writable()
            if self._exchange is not exchange:
                return
        if self._method:
            if events & (IN | HANGUP):
                self._read_head(exchange)
        else:
            exchange.on_readable()

    def _read_head(self, exchange: Answered) -> None:
        try:
            came = self.wire.receive(self.wire.reactor.head_scratch)
            if came is None:
                return
        except Gone as error:
            self._lost(exchange, str(error))
            return
        if not came:
            self._lost(exchange, "closed without an answer")
            return
        data = self._inbox + bytes(came) if self._inbox else bytes(came)
        self._inbox = b""
        try:
            self._answer(exchange, data)
        except Refused as error:
            self._exchange = None
            self._drop()
            exchange.on_bad_response(error)

    def _lost(self, exchange: Answered, reason: str) -> None:
        self._exchange = None
        is_untouched = not self._inbox
        self._drop()
        exchange.on_lost(self, reason, is_untouched)

    def _answer(self, exchange: Answered, data: bytes) -> None:
        while self._exchange is exchange and self._method:
            end = data.find(HEAD_END, 0, _HEAD_BYTES)
            if end < 0:
                if len(data) >= _HEAD_BYTES:
                    raise Refused(502, "backend head", "the backend's head is too long")
                self._inbox = data
                return
            response = self._reader.response(data[: end + 4], self._method)
            data = data[end + 4 :]
            if response.status >= 200 or response.status == 101:
                self._method = b""  # what comes now is no head
            exchange.on_response(response, data)
