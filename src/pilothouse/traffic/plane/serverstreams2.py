"""One stream of a backend's HTTP/2 connection: a request into frames, an answer out of frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from ngh2 import ErrorCode, NGH2Error

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Truncated
from pilothouse.traffic.plane.bodies2 import StreamBodies
from pilothouse.traffic.plane.http import UNKNOWN, Body, FieldList, Refused, Request, Response
from pilothouse.traffic.plane.switching import WEBSOCKET
from pilothouse.traffic.plane.tunnels2 import ServerStreamEnd
from pilothouse.traffic.plane.upstream import Answered, Outgoing
from pilothouse.traffic.plane.wires import Buffer, Gone

if TYPE_CHECKING:
    from pilothouse.traffic.plane.server2 import Server2

__all__ = ["ServerStream2", "read_response"]

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_NEVER: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


def read_response(headers: Iterable[Any], method: bytes, *, is_whole: bool) -> Response:
    """Return a response. is_whole: whether no body comes. Raises Refused (502)."""
    status, fields, length = 0, [], UNKNOWN
    for name, value in headers:
        if name == b":status":
            status = int(value)
        elif name == b"content-length" and method != b"HEAD":
            length = int(value) if value.isdigit() and len(value) <= 18 else UNKNOWN
        elif name[:1] != b":" and name not in _NEVER:
            fields.append((bytes(name), bytes(value)))
    if not 100 <= status <= 599 or status == 101:
        raise Refused(502, "backend head", "the backend's answer has no usable status")
    response = Response(status, _REASONS.get(status, b""), fields)
    response.minor = 2
    if not is_whole and method != b"HEAD" and status not in {204, 304}:
        response.body = Body.LENGTH if length > 0 else Body.FRAMES if length < 0 else Body.NONE
        response.length = length
    return response


class ServerStream2(StreamBodies):
    """A request and its answer: the backend's side of an exchange, the sink of its body, the source of the answer's."""

    __slots__ = (
        "_connection",
        "_exchange",
        "_held",
        "_is_answered",
        "_is_broken",
        "_is_secure",
        "_is_switched",
        "_is_tunnel",
        "_method",
        "beyond",
        "endpoint",
        "is_decoded",
    )

    def __init__(self, connection: Server2, is_secure: bool) -> None:
        super().__init__(connection, connection.wire, 0, is_whole=False)
        self._connection = connection
        self._is_secure = is_secure
        self._exchange: Answered | None = None
        self.endpoint: EndpointState = connection.endpoint
        self.beyond = b""
        self.is_decoded = True
        self._is_answered = self._is_broken = False
        self._is_tunnel = self._is_switched = False
        self._held: Outgoing | None = None
        self._method = b""

    @property
    def served(self) -> int:
        """Requests of the connection so far."""
        return self._connection.served

    @property
    def is_busy(self) -> bool:
        """Whether the request is on its way."""
        return self.id > 0 or self._held is not None

    # Opening

    def open(self, exchange: Answered) -> None:
        """Tell the exchange once the connection is open."""
        self._exchange = exchange
        self._connection.open(self)

    def opened(self) -> None:
        """Tell the exchange that the connection is open."""
        if self._exchange is not None:
            self._exchange.on_connected(self)

    def unreachable(self, reason: str) -> None:
        """Tell the exchange that there is no connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_unreachable(self, reason)

    def forsake(self) -> None:
        """Wait no more."""
        self._exchange = None
        self._connection.forsake(self)

    # The request

    def begin(
        self, exchange: Answered, outgoing: Outgoing, pieces: Sequence[Buffer], trailers: FieldList | None
    ) -> None:
        """Queue a head with what there is of its body. Raises Gone."""
        self._exchange = exchange
        request = outgoing.request
        self._method = request.method
        self._is_tunnel = bool(request.upgrade)
        if self._is_tunnel and not self._connection.takes_tunnels:
            self._hold(outgoing)
            return
        fields = [
            (b":method", b"CONNECT" if self._is_tunnel else request.method),
            (b":scheme", b"https" if self._is_secure else b"http"),
            (b":authority", outgoing.authority),
            (b":path", outgoing.target),
            *outgoing.fields,
        ]
        if self._is_tunnel:
            fields.insert(1, (b":protocol", request.upgrade.lower()))
        if request.trailers:
            fields.append((b"te", b"trailers"))
        if request.body is Body.LENGTH:
            fields.append((b"content-length", b"%d" % request.length))
        engine, is_bodiless = self._connection.engine, request.body is Body.NONE and not self._is_tunnel
        try:
            self.id = engine.send_request(fields, end_stream=is_bodiless)
            self._connection.began(self.id, self)
            if pieces:
                engine.send_data(self.id, b"".join(pieces))
            if trailers is not None and not is_bodiless:
                self.finish_body(trailers)
        except NGH2Error as error:
            raise Gone(str(error) or type(error).__name__) from None

    def _hold(self, outgoing: Outgoing) -> None:
        """Wait until the backend says whether it takes tunnels, or refuse where it does not."""
        if self._connection.hold(self):
            self._held = outgoing
        elif self._exchange is not None:
            error = Refused(501, "upgrade", "the backend takes no WebSockets by HTTP/2")
            self._exchange.on_bad_response(error, is_endpoints=False)

    def let_go(self) -> None:
        """Send the request that waited for the backend's settings."""
        outgoing, self._held = self._held, None
        exchange = self._exchange
        if outgoing is None or exchange is None:
            return
        try:
            self.begin(exchange, outgoing, (), None)
        except Gone as error:
            exchange.on_lost(self, str(error), is_untouched=True)

    def sink(self, request: Request) -> ServerStream2:
        """Return where the rest of the request's body goes: here."""
        del request
        return self

    def writable(self) -> None:
        """Go on with the body."""
        if self._exchange is not None:
            self._exchange.on_writable()

    # The answer

    def answered(self, headers: Iterable[Any], is_whole: bool) -> None:
        """Take the answer's head."""
        exchange = self._exchange
        if exchange is None:
            return
        self._is_answered = True
        self.has_ended = self.done = is_whole
        try:
            response = read_response(headers, self._method, is_whole=is_whole)
        except Refused as error:
            exchange.on_bad_response(error)
            return
        if self._is_tunnel and 200 <= response.status < 300:
            switched = Response(101, b"Switching Protocols", response.fields)
            switched.upgrade = WEBSOCKET
            exchange.on_response(switched, b"")
            return
        exchange.on_response(response, b"")

    def informed(self, headers: Iterable[Any]) -> None:
        """Take an interim head."""
        if self._exchange is not None:
            with contextlib.suppress(Refused):
                response = read_response(headers, self._method, is_whole=True)
                if response.status < 200:
                    self._exchange.on_response(response, b"")

    def has_spoken(self) -> bool:
        """Return whether an answer has begun."""
        return self._is_answered

    def source(self, response: Response, rest: bytes) -> ServerStream2:
        """Return where the answer's body comes from: here."""
        del response, rest
        return self

    def came(self, data: bytes, is_last: bool) -> None:
        """Take a piece of the answer's body."""
        if self._exchange is None:
            self._connection.consumed(self.id, len(data))
            return
        if data:
            self._pieces.append(data)
        if is_last:
            self.ended([])
        else:
            self._exchange.on_readable()

    def ended(self, trailers: FieldList) -> None:
        """Take note of the answer's end."""
        self.has_ended = True
        self._trailers = trailers
        self.done = not self._pieces
        if self._exchange is not None:
            self._exchange.on_readable()

    @property
    def is_all(self) -> bool:
        """Whether the answer's last byte has come."""
        return self.has_ended

    def read(self) -> Sequence[Buffer] | None:
        if self._is_broken and not self._pieces:
            raise Truncated
        return super().read()

    # Ends

    def closed(self, code: int) -> None:
        """Act on that the stream is over."""
        if code == ErrorCode.NO_ERROR and self.has_ended and not self._is_tunnel:
            return
        self._lost(f"the backend reset the stream ({code})", is_untouched=code == ErrorCode.REFUSED_STREAM)

    def lost(self, reason: str) -> None:
        """Act on that the connection is over."""
        self._lost(reason, is_untouched=True)

    def _lost(self, reason: str, *, is_untouched: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if self.has_ended:
            if self._is_tunnel:  # what goes the other way may have ended, or not
                exchange.on_lost(self, reason, is_untouched)
            return
        if self._is_answered:
            self._is_broken = True
            exchange.on_readable()
            return
        self._exchange = None
        exchange.on_lost(self, reason, is_untouched)

    def finish(self, is_reusable: bool) -> None:
        """Let go after the answer."""
        del is_reusable
        self._exchange = None
        self._discard()
        if self._is_tunnel and not self._is_switched:
            self._connection.reset(self.id)  # the way there is open still

    def abort(self) -> None:
        """Take the request back."""
        self._exchange = None
        if self.id:
            self._discard()
            self._connection.reset(self.id)
        else:
            self._held = None
            self._connection.forsake(self)

    def tunnelled(self, rest: bytes) -> ServerStreamEnd:
        """Give the stream to a tunnel."""
        del rest
        end = self._exchange = ServerStreamEnd(self)
        self._is_switched = True
        return end
